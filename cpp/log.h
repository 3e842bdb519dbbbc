// TensorRT's log lines: collected for the call that caused them, and forwarded to whoever listens.
#pragma once

#include <atomic>
#include <mutex>
#include <string>
#include <vector>

#include "api.h"

namespace tickrt::log {

// Collects the lines of one call.
//
// A line belongs to the capture that is active on the thread that logs it; a line from a thread of TensorRT's own
// (the builder has some) belongs to every shared capture, for nobody can tell which call it came from.
class Capture {
  public:
    // `least`: the least severe line that is kept.
    explicit Capture(api::Severity least = api::Severity::Warning) noexcept : least_(least) {}
    Capture(const Capture&) = delete;
    Capture& operator=(const Capture&) = delete;

    void add(api::Severity severity, const char* line) noexcept;
    std::vector<std::string> lines() const;
    std::vector<std::string> warnings() const;
    std::size_t errors() const;  // how many
    std::vector<std::string> take();

  private:
    struct Line {
        api::Severity severity;
        std::string text;
    };
    // A context's capture lives as long as the context: a warning at every enqueue must not fill the memory.
    static constexpr std::size_t kMaxLines = 10000;

    const api::Severity least_;
    mutable std::mutex mutex_;
    std::vector<Line> lines_;
};

// Makes a capture the calling thread's for a scope. Costs two thread-local writes: fit for the data plane.
class ThreadScope {
  public:
    explicit ThreadScope(Capture& capture) noexcept;
    ~ThreadScope();
    ThreadScope(const ThreadScope&) = delete;
    ThreadScope& operator=(const ThreadScope&) = delete;

  private:
    Capture* const before_;
};

// The same, and shared: TensorRT's own threads' lines are collected as well. For builds and loading.
class SharedScope {
  public:
    explicit SharedScope(Capture& capture);
    ~SharedScope();
    SharedScope(const SharedScope&) = delete;
    SharedScope& operator=(const SharedScope&) = delete;

  private:
    Capture* const capture_;
    const ThreadScope thread_;
};

// Every flavour's ILogger ends here.
void line(api::Severity severity, const char* text) noexcept;

using Sink = void (*)(api::Severity, const char*) noexcept;

// Lines of at least this severity go to `sink`; null: none.
void forward(Sink sink, api::Severity least) noexcept;

}  // namespace tickrt::log
