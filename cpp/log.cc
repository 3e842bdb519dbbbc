#include "log.h"

#include <algorithm>
#include <utility>

namespace tickrt::log {
namespace {

thread_local Capture* active = nullptr;

struct Shared {
    std::mutex mutex;
    std::vector<Capture*> captures;
};

// Never destroyed: TensorRT's threads may log while the process ends.
Shared& shared() {
    static auto* const instance = new Shared;
    return *instance;
}

// Relaxed suffices for both: nothing else is published through them, and a line more or less does not matter.
std::atomic<Sink> sink{nullptr};
std::atomic<api::Severity> sink_least{api::Severity::Error};

}  // namespace

void Capture::add(api::Severity severity, const char* line) noexcept {
    if (severity > least_) {
        return;
    }
    try {
        const std::lock_guard<std::mutex> guard(mutex_);
        // The newest lines are those about a failure.
        if (lines_.size() == kMaxLines) {
            lines_.erase(lines_.begin());
        }
        lines_.push_back({severity, line});
    } catch (...) {
        // Out of memory: the line is lost, the call goes on.
    }
}

std::vector<std::string> Capture::lines() const {
    const std::lock_guard<std::mutex> guard(mutex_);
    std::vector<std::string> texts;
    for (const Line& line : lines_) {
        texts.push_back(line.text);
    }
    return texts;
}

std::vector<std::string> Capture::warnings() const {
    const std::lock_guard<std::mutex> guard(mutex_);
    std::vector<std::string> texts;
    for (const Line& line : lines_) {
        if (line.severity == api::Severity::Warning) {
            texts.push_back(line.text);
        }
    }
    return texts;
}

std::size_t Capture::errors() const {
    const std::lock_guard<std::mutex> guard(mutex_);
    return static_cast<std::size_t>(std::count_if(
        lines_.begin(), lines_.end(), [](const Line& line) { return line.severity == api::Severity::Error; }));
}

std::vector<std::string> Capture::take() {
    std::vector<std::string> texts = lines();
    const std::lock_guard<std::mutex> guard(mutex_);
    lines_.clear();
    return texts;
}

ThreadScope::ThreadScope(Capture& capture) noexcept : before_(std::exchange(active, &capture)) {}

ThreadScope::~ThreadScope() {
    active = before_;
}

SharedScope::SharedScope(Capture& capture) : capture_(&capture), thread_(capture) {
    const std::lock_guard<std::mutex> guard(shared().mutex);
    shared().captures.push_back(&capture);
}

SharedScope::~SharedScope() {
    const std::lock_guard<std::mutex> guard(shared().mutex);
    auto& captures = shared().captures;
    captures.erase(std::find(captures.begin(), captures.end(), capture_));
}

void line(api::Severity severity, const char* text) noexcept {
    if (active != nullptr) {
        active->add(severity, text);
    } else {
        const std::lock_guard<std::mutex> guard(shared().mutex);
        for (Capture* capture : shared().captures) {
            capture->add(severity, text);
        }
    }
    const Sink to = sink.load(std::memory_order_relaxed);
    if (to != nullptr && severity <= sink_least.load(std::memory_order_relaxed)) {
        to(severity, text);
    }
}

void forward(Sink to, api::Severity least) noexcept {
    sink_least.store(least, std::memory_order_relaxed);
    sink.store(to, std::memory_order_relaxed);
}

}  // namespace tickrt::log
