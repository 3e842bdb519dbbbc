// The chain: TensorRT, ONNX Runtime CUDA, ONNX Runtime CPU.
#pragma once

#include <string>

#include "calls.hpp"
#include "session.hpp"

namespace tickrt {

// Names the entries, in the order in which they are tried.
class Chain {
  public:
    Chain() : handle_(tickrt_chain_new()) {}

    Chain &resident(const std::string &engine) { return keep(tickrt_chain_add_resident(get(), engine.c_str())); }
    Chain &tensorrt(const std::string &engine) { return keep(tickrt_chain_add_tensorrt(get(), engine.c_str())); }
    Chain &engine(const Engine &engine) { return keep(tickrt_chain_add_engine(get(), engine.get())); }
    Chain &ort_cuda(const std::string &onnx) { return keep(tickrt_chain_add_ort_cuda(get(), onnx.c_str())); }
    Chain &ort_cpu(const std::string &onnx) { return keep(tickrt_chain_add_ort_cpu(get(), onnx.c_str())); }
    Chain &allow_host_code() { return keep(tickrt_chain_allow_host_code(get())); }
    Chain &pass_over_untrusted() { return keep(tickrt_chain_pass_over_untrusted(get())); }
    Chain &allow_different_models() { return keep(tickrt_chain_allow_different_models(get())); }

    Result<void> take_error() noexcept { return Result<void>(error_.release()); }
    tickrt_chain *get() const noexcept { return handle_.get(); }
    tickrt_chain *release() noexcept { return handle_.release(); }

  private:
    Chain &keep(tickrt_error *error) noexcept {
        if (error_ == nullptr) {
            error_.reset(error);
        } else {
            tickrt_error_free(error);
        }
        return *this;
    }

    detail::Owned<tickrt_chain, tickrt_chain_free> handle_;
    detail::Owned<tickrt_error, tickrt_error_free> error_;
};

// One warmed-up session for each entry; answers from the first that works.
class Predictor : public Calls<tickrt_predictor> {
  public:
    // The chain is used up.
    static Result<Predictor> start(Chain &chain, Config config = {}) {
        if (auto fine = chain.take_error(); !fine) {
            return std::move(fine).take_error();
        }
        if (auto fine = config.take_error(); !fine) {
            return std::move(fine).take_error();
        }
        tickrt_predictor *made = nullptr;
        if (tickrt_error *error = tickrt_predictor_new(chain.release(), config.get(), &made)) {
            return Error(error);
        }
        return Predictor(made);
    }

    // Which backend answers now.
    Result<tickrt_backend> active() {
        tickrt_backend backend;
        if (tickrt_error *error = tickrt_predictor_active(get(), &backend)) {
            return Error(error);
        }
        return backend;
    }
    Result<std::size_t> passed_over_count() {
        std::size_t count;
        if (tickrt_error *error = tickrt_predictor_passed_over_count(get(), &count)) {
            return Error(error);
        }
        return count;
    }
    // A backend that does not answer, and why.
    Result<tickrt_passed_over> passed_over(std::size_t index) {
        tickrt_passed_over passed;
        if (tickrt_error *error = tickrt_predictor_passed_over(get(), index, &passed)) {
            return Error(error);
        }
        return passed;
    }
    Result<void> rearm() { return Result<void>(tickrt_predictor_rearm(get())); }

  private:
    using Calls::Calls;
};

} // namespace tickrt
