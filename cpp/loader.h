// Loading TensorRT at run time: dlopen, the four C symbols, and which flavour fits.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "api.h"

namespace tickrt::loader {

// TensorRT's factories; the first argument of each is an nvinfer1 object of the library's own major.
using Create = void* (*)(void* logger, int32_t version);
using CreateParser = void* (*)(void* network, void* logger, int32_t version);

// An opened library. Never closed: TensorRT has threads and thread-local state that outlive every handle of ours.
class Native {
  public:
    Native(void* handle, std::string path, api::Version version);

    const api::Version version;
    const std::string path;  // the file, as the dynamic linker resolved it

    // Null when the library lacks it.
    Create create_runtime() const noexcept;
    Create create_builder() const noexcept;

    // The ONNX parser lies in a library of its own, which only building needs: opened at the first call.
    // Null, and `why` says what was tried, when it can't be.
    CreateParser create_parser(const char* soname, const char* plugin_soname, std::string& why) const;

    // TensorRT 8's builder opens a resource library by its bare name; loaded from beside libnvinfer first, it is found
    // without LD_LIBRARY_PATH. Absent in other versions, and that is fine.
    void preload_builder_resource() const noexcept;

  private:
    std::string beside(const std::string& soname) const;

    void* const handle_;  // null: linked in
    mutable std::once_flag parser_once_, resource_once_;
    mutable CreateParser parser_ = nullptr;
    mutable std::string parser_why_;
};

// One compiled-in set of headers.
struct Shim {
    api::Flavour flavour;
    api::Version headers;
    std::shared_ptr<api::Library> (*make)(std::shared_ptr<const Native> native);
};

const std::vector<Shim>& shims();

struct Opened {
    api::Failure failure;
    api::Flavour flavour = api::Flavour::Trt8;
    api::Version version;
    std::string path;
    std::shared_ptr<api::Library> library;
};

// `name` is what dlopen takes: a path or a soname.
Opened open(const std::string& name);

// The TensorRT that this program was linked with (the feature tensorrt-static).
bool has_linked() noexcept;
Opened open_linked();

}  // namespace tickrt::loader
