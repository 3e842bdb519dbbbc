// TensorRT's logger for this flavour.
#pragma once

#include "nv.h"

namespace tickrt::TICKRT_FLAVOUR {

class Logger final : public nvinfer1::ILogger {
  public:
    // One for the whole process, never destroyed: TensorRT keeps the first logger it is given, and complains about a
    // second one.
    static Logger& instance() {
        static auto* const logger = new Logger;
        return *logger;
    }

    void log(Severity severity, nvinfer1::AsciiChar const* text) noexcept override {
        log::line(convert(severity), text != nullptr ? text : "");
    }

  private:
    static api::Severity convert(Severity severity) noexcept {
        switch (severity) {
            case Severity::kINTERNAL_ERROR:
            case Severity::kERROR:
                return api::Severity::Error;
            case Severity::kWARNING:
                return api::Severity::Warning;
            case Severity::kINFO:
                return api::Severity::Info;
            default:
                return api::Severity::Verbose;
        }
    }
};

}  // namespace tickrt::TICKRT_FLAVOUR
