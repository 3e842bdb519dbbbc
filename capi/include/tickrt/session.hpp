// An engine, and a session on it or on ONNX Runtime's CPU provider.
#pragma once

#include <string>

#include "calls.hpp"
#include "config.hpp"
#include "engine.h"

namespace tickrt {

// A plan, checked and handed to TensorRT.
class Engine {
  public:
    static Result<Engine> load(const std::string &path, std::size_t device = 0) {
        tickrt_engine *engine = nullptr;
        tickrt_error *const error = tickrt_engine_load(path.c_str(), device, &engine);
        return wrap(error, engine);
    }
    // A plan without a sidecar, on the caller's word.
    static Result<Engine> load_unverified(const std::string &path, std::size_t device = 0) {
        tickrt_engine *engine = nullptr;
        tickrt_error *const error = tickrt_engine_load_unverified(path.c_str(), device, &engine);
        return wrap(error, engine);
    }

    std::size_t tensor_count() const noexcept { return tickrt_engine_tensor_count(get()); }
    Result<tickrt_tensor> tensor(std::size_t index) const {
        tickrt_tensor found;
        if (tickrt_error *error = tickrt_engine_tensor(get(), index, &found)) {
            return Error(error);
        }
        return found;
    }
    const char *library() const noexcept { return tickrt_engine_library(get()); }

    tickrt_engine *get() const noexcept { return handle_.get(); }

  private:
    explicit Engine(tickrt_engine *handle) noexcept : handle_(handle) {}

    static Result<Engine> wrap(tickrt_error *error, tickrt_engine *engine) {
        if (error != nullptr) {
            return Error(error);
        }
        return Engine(engine);
    }

    detail::Owned<tickrt_engine, tickrt_engine_free> handle_;
};

// One backend, warmed up, and its ring of slots. One thread at a time uses it.
class Session : public Calls<tickrt_session> {
  public:
    static Result<Session> start(const Engine &engine, Config config = {}) {
        return make(config,
                    [&](tickrt_session **made) { return tickrt_session_new(engine.get(), config.get(), made); });
    }
    static Result<Session> ort_cpu(const std::string &onnx, Config config = {}) {
        return make(config, [&](tickrt_session **made) {
            return tickrt_session_new_ort_cpu(onnx.c_str(), config.get(), made);
        });
    }
    static Result<Session> resident(const std::string &engine, Config config = {}) {
        return make(config, [&](tickrt_session **made) {
            return tickrt_session_new_resident(engine.c_str(), config.get(), made);
        });
    }

    Result<void> reset_state() { return Result<void>(tickrt_session_reset_state(get())); }

    Result<tickrt_backend> backend() {
        tickrt_backend backend;
        if (tickrt_error *error = tickrt_session_backend(get(), &backend)) {
            return Error(error);
        }
        return backend;
    }
    const char *description() const noexcept { return tickrt_session_description(get()); }

  private:
    using Calls::Calls;

    template <typename Start>
    static Result<Session> make(Config &config, Start start) {
        if (auto fine = config.take_error(); !fine) {
            return std::move(fine).take_error();
        }
        tickrt_session *made = nullptr;
        if (tickrt_error *error = start(&made)) {
            return Error(error);
        }
        return Session(made);
    }
};

} // namespace tickrt
