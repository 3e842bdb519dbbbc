#include "loader.h"

#include <dlfcn.h>

#ifdef TICKRT_LINKED_TENSORRT
// Of the archives that the program is linked with.
extern "C" {
int32_t getInferLibVersion() noexcept;
void* createInferRuntime_INTERNAL(void* logger, int32_t version) noexcept;
void* createInferBuilder_INTERNAL(void* logger, int32_t version) noexcept;
void* createNvOnnxParser_INTERNAL(void* network, void* logger, int32_t version);
}
#endif

namespace tickrt {

// Defined by flavour.cc, once for each set of headers; the build says which there are.
#ifdef TICKRT_HAVE_TRT8
namespace trt8 {
const loader::Shim& shim();
}
#endif
#ifdef TICKRT_HAVE_TRT10
namespace trt10 {
const loader::Shim& shim();
}
#endif
#ifdef TICKRT_HAVE_TRT11
namespace trt11 {
const loader::Shim& shim();
}
#endif
#ifdef TICKRT_HAVE_RTX
namespace rtx {
const loader::Shim& shim();
}
#endif

namespace loader {
namespace {

// The first TensorRT-RTX release whose virtual tables ours agree with: 1.5 dropped methods from the middle of them,
// 1.6 and 1.7 only appended (compared header by header).
constexpr uint32_t kRtxFirstMinor = 5;
constexpr const char* kVersionSymbol = "getInferLibVersion";

void* symbol(void* handle, const char* name) noexcept {
    return dlsym(handle, name);
}

template <typename Function>
Function function(void* handle, const char* name) noexcept {
    return reinterpret_cast<Function>(symbol(handle, name));
}

// 8601 is 8.6.1; from TensorRT 10 on, and in TensorRT-RTX, 101501 is 10.15.1 and 10701 is 1.7.1.
api::Version decode(int32_t number) noexcept {
    const auto value = static_cast<uint32_t>(number);
    const uint32_t major_unit = value < 10000 ? 1000 : 10000;
    return {value / major_unit, value % major_unit / 100, value % 100};
}

bool is_rtx(api::Version version) noexcept {
    return version.major < 8;
}

std::string number(api::Version version) {
    return std::to_string(version.major) + "." + std::to_string(version.minor) + "." + std::to_string(version.patch);
}

std::string product(api::Version version) {
    return (is_rtx(version) ? "TensorRT-RTX " : "TensorRT ") + number(version);
}

std::string last_error() {
    const char* const text = dlerror();
    return text != nullptr ? text : "unknown reason";
}

std::string file_of(void* address, const std::string& otherwise) {
    Dl_info info{};
    const bool found = dladdr(address, &info) != 0 && info.dli_fname != nullptr;
    return found ? info.dli_fname : otherwise;
}

// Why a library can't be driven through a shim of these headers; empty where it can. A wrong guess here would be a
// call through the wrong slot of a virtual table.
std::string misfit(api::Version library, api::Version headers) {
    const bool rtx = is_rtx(headers);
    if (rtx && (library.minor < kRtxFirstMinor || headers.minor < kRtxFirstMinor || library.minor > headers.minor) &&
        library.minor != headers.minor) {
        return "TensorRT-RTX changes its ABI between minor releases";
    }
    // 8.6 added the builder options that ours calls; TensorRT 10 and 11 only append after their .0, and the shim asks
    // for the version before it calls what is younger.
    if (library.major == 8 && library.minor < 6) {
        return "TensorRT before 8.6 lacks methods that tickrt calls";
    }
    return {};
}

api::Failure refused(const std::string& name, std::string expected, std::string got, std::string advice) {
    api::Failure failure;
    failure.kind = api::FailureKind::LibraryMissing;
    failure.operation = "open " + name;
    failure.expected = std::move(expected);
    failure.got = std::move(got);
    failure.advice = std::move(advice);
    return failure;
}

std::string compiled_in() {
    std::string list;
    for (const Shim& shim : shims()) {
        list += (list.empty() ? "" : ", ") + product(shim.headers);
    }
    return list.empty() ? "a flavour that is compiled in (there is none)" : "a library that fits headers of " + list;
}

}  // namespace

namespace {

// What takes the place of dlsym's answers where TensorRT is linked in.
struct Linked {
    int32_t (*version)();
    Create create_runtime, create_builder;
    CreateParser create_parser;
};

constexpr Linked kLinked =
#ifdef TICKRT_LINKED_TENSORRT
    {&getInferLibVersion, &createInferRuntime_INTERNAL, &createInferBuilder_INTERNAL, &createNvOnnxParser_INTERNAL};
#else
    {};
#endif

}  // namespace

Native::Native(void* handle, std::string path, api::Version version)
    : version(version), path(std::move(path)), handle_(handle) {}

Create Native::create_runtime() const noexcept {
    return handle_ == nullptr ? kLinked.create_runtime : function<Create>(handle_, "createInferRuntime_INTERNAL");
}

Create Native::create_builder() const noexcept {
    return handle_ == nullptr ? kLinked.create_builder : function<Create>(handle_, "createInferBuilder_INTERNAL");
}

CreateParser Native::create_parser(const char* soname, const char* plugin_soname, std::string& why) const {
    if (handle_ == nullptr) {
        return kLinked.create_parser;
    }
    std::call_once(parser_once_, [&] {
        // The parser names the plugin library among its needs, by soname: one that is loaded already is taken.
        if (plugin_soname != nullptr) {
            (void)dlopen(beside(plugin_soname).c_str(), RTLD_LAZY | RTLD_LOCAL);
        }
        void* handle = nullptr;
        for (const std::string& name : {beside(soname), std::string(soname)}) {
            handle = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
            if (handle != nullptr) {
                break;
            }
            parser_why_ += (parser_why_.empty() ? "" : "; ") + last_error();
        }
        if (handle == nullptr) {
            return;
        }
        parser_ = function<CreateParser>(handle, "createNvOnnxParser_INTERNAL");
        if (parser_ == nullptr) {
            parser_why_ = last_error();
        }
    });
    why = parser_why_;
    return parser_;
}

void Native::preload_builder_resource() const noexcept {
    try {
        std::call_once(resource_once_, [&] {
            const std::string name = "libnvinfer_builder_resource.so." + number(version);
            (void)dlopen(beside(name).c_str(), RTLD_LAZY | RTLD_LOCAL);
        });
    } catch (...) {
        // Out of memory for a name: TensorRT will say what it misses.
    }
}

std::string Native::beside(const std::string& soname) const {
    const std::size_t slash = path.rfind('/');
    return slash == std::string::npos ? soname : path.substr(0, slash + 1) + soname;
}

const std::vector<Shim>& shims() {
    static const std::vector<Shim> all{
#ifdef TICKRT_HAVE_TRT8
        trt8::shim(),
#endif
#ifdef TICKRT_HAVE_TRT10
        trt10::shim(),
#endif
#ifdef TICKRT_HAVE_TRT11
        trt11::shim(),
#endif
#ifdef TICKRT_HAVE_RTX
        rtx::shim(),
#endif
    };
    return all;
}

namespace {

// Finds the shim that drives a library; a null handle is the one that is linked in.
Opened choose(void* handle, int32_t (*lib_version)(), const std::string& name) {
    Opened opened;
    // Asked before anything else: the factories ignore the version that they are given.
    const api::Version version = decode(lib_version());
    std::string reason;
    for (const Shim& shim : shims()) {
        if (shim.headers.major != version.major) {
            continue;
        }
        reason = misfit(version, shim.headers);
        if (reason.empty()) {
            opened.flavour = shim.flavour;
            opened.version = version;
            opened.path = file_of(reinterpret_cast<void*>(lib_version), name);
            opened.library = shim.make(std::make_shared<const Native>(handle, opened.path, version));
            return opened;
        }
    }
    opened.failure = refused(name, compiled_in(), product(version) + (reason.empty() ? "" : ": " + reason),
                             "compile tickrt with TENSORRT_ROOT set to that version");
    return opened;
}

}  // namespace

bool has_linked() noexcept {
    return kLinked.version != nullptr;
}

Opened open_linked() {
    if (!has_linked()) {
        Opened opened;
        opened.failure = refused("the TensorRT that is linked in", "", "none is", "build with the feature tensorrt-static");
        return opened;
    }
    return choose(nullptr, kLinked.version, "the TensorRT that is linked in");
}

Opened open(const std::string& name) {
    Opened opened;
    // Local: two TensorRT majors in one process export the same names.
    void* const handle = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) {
        opened.failure = refused(name, "", last_error(), "");
        return opened;
    }
    const auto lib_version = function<int32_t (*)()>(handle, kVersionSymbol);
    if (lib_version == nullptr) {
        opened.failure = refused(name, "a TensorRT library", last_error(), "");
        return opened;
    }
    return choose(handle, lib_version, name);
}

}  // namespace loader
}  // namespace tickrt
