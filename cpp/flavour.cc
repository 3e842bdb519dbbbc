// The shim over TensorRT. Compiled once for each set of headers, with the namespaces nvinfer1 and nvonnxparser renamed
// and TICKRT_FLAVOUR set, so that all of them live in one binary; loader.cc picks the one whose library is there.

#include <memory>
#include <utility>

#include "flavour/build.h"
#include "flavour/engine.h"
#include "flavour/nv.h"

namespace tickrt::TICKRT_FLAVOUR {
namespace {

class Library final : public api::Library {
  public:
    explicit Library(std::shared_ptr<const loader::Native> native) : native_(std::move(native)) {}

    api::BuildReply build(const api::Model* model, const api::BuildOptions& options, api::Bytes timing_cache,
                          const api::Observer& observer, const api::Calibrator& calibrator) const override {
        return Build(*native_, options, observer, calibrator).run(model, timing_cache);
    }

    api::EngineReply deserialize(api::Bytes plan, bool allow_host_code) const override {
        return TICKRT_FLAVOUR::deserialize(native_, plan, allow_host_code);
    }

  private:
    const std::shared_ptr<const loader::Native> native_;
};

std::shared_ptr<api::Library> make(std::shared_ptr<const loader::Native> native) {
    return std::make_shared<Library>(std::move(native));
}

constexpr api::Flavour kFlavour =
#if TICKRT_RTX
    api::Flavour::Rtx;
#elif TICKRT_MAJOR == 8
    api::Flavour::Trt8;
#elif TICKRT_MAJOR == 10
    api::Flavour::Trt10;
#elif TICKRT_MAJOR == 11
    api::Flavour::Trt11;
#else
#error "no flavour for this version of TensorRT"
#endif

}  // namespace

const loader::Shim& shim();
const loader::Shim& shim() {
    static const loader::Shim instance{kFlavour, {NV_TENSORRT_MAJOR, NV_TENSORRT_MINOR, NV_TENSORRT_PATCH}, &make};
    return instance;
}

}  // namespace tickrt::TICKRT_FLAVOUR
