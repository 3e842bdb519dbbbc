// Making and classifying failures, the same for every flavour.
#pragma once

#include <string>
#include <vector>

#include "api.h"

namespace tickrt {

api::Failure failure(api::FailureKind kind, std::string operation, std::string got = {}, std::string expected = {},
                     std::string advice = {});

// As `failure`, with TensorRT's lines. TensorRT has no error codes for these calls: where its lines say that there is
// no GPU or no memory, the kind becomes that.
api::Failure failure_with_log(api::FailureKind kind, std::string operation, std::string got,
                              std::vector<std::string> log);

// `1x8x32`, as trtexec writes it.
std::string shown(const std::vector<int64_t>& shape);

// In quotes, with JSON's escapes.
std::string json_string(const std::string& text);

}  // namespace tickrt
