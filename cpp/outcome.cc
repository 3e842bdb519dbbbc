#include "outcome.h"

#include <cstdio>
#include <initializer_list>
#include <utility>

namespace tickrt {
namespace {

bool mentions(const std::vector<std::string>& lines, std::initializer_list<const char*> phrases) {
    for (const std::string& line : lines) {
        for (const char* const phrase : phrases) {
            if (line.find(phrase) != std::string::npos) {
                return true;
            }
        }
    }
    return false;
}

}  // namespace

api::Failure failure(api::FailureKind kind, std::string operation, std::string got, std::string expected,
                     std::string advice) {
    api::Failure made;
    made.kind = kind;
    made.operation = std::move(operation);
    made.expected = std::move(expected);
    made.got = std::move(got);
    made.advice = std::move(advice);
    return made;
}

api::Failure failure_with_log(api::FailureKind kind, std::string operation, std::string got,
                              std::vector<std::string> log) {
    api::Failure made = failure(kind, std::move(operation), std::move(got));
    if (mentions(log, {"CUDA initialization failure", "no CUDA-capable device", "driver version is insufficient",
                       "cudaErrorNoDevice", "cudaErrorInsufficientDriver", "Cuda driver not found"})) {
        made.kind = api::FailureKind::NoGpu;
        made.advice =
            "this needs an NVIDIA GPU and its driver; TensorRT-RTX builds for named compute capabilities without";
    } else if (mentions(log, {"out of memory", "OutOfMemory", "cudaErrorMemoryAllocation"})) {
        made.kind = api::FailureKind::OutOfMemory;
        made.advice = "lower the workspace, the profiles' greatest shapes or the number of sessions on this GPU";
    }
    made.log = std::move(log);
    return made;
}

std::string shown(const std::vector<int64_t>& shape) {
    std::string text;
    for (const int64_t dimension : shape) {
        text += (text.empty() ? "" : "x") + std::to_string(dimension);
    }
    return text.empty() ? "a scalar" : text;
}

std::string json_string(const std::string& text) {
    std::string json = "\"";
    for (const char character : text) {
        if (character == '"' || character == '\\') {
            json += '\\';
            json += character;
        } else if (static_cast<unsigned char>(character) < 0x20) {
            char escape[8];
            std::snprintf(escape, sizeof escape, "\\u%04x", static_cast<unsigned>(character));
            json += escape;
        } else {
            json += character;
        }
    }
    return json + '"';
}

}  // namespace tickrt
