// Functions of one number.

namespace tickrt {
namespace resident {

enum class Function : u32 { None, Relu, Tanh, Sigmoid, Gelu, GeluTanh, LeakyRelu, Elu };

constexpr float kLog2E = 1.4426950408889634f;
__device__ inline float exponential(float x) { return power_of_two(x * kLog2E); }
__device__ inline float sigmoid(float x) { return reciprocal(1.f + exponential(-x)); }
// Within 2e-7 of the true one: the sum with 1 rounds.
__device__ inline float hyperbolic_tangent(float x) { return fmaf(-2.f, reciprocal(1.f + exponential(2.f * x)), 1.f); }

template <Function kFunction>
__device__ float apply(float x, float alpha) {
  switch (kFunction) {
    case Function::Relu: return x < 0.f ? 0.f : x;  // NaN stays NaN
    case Function::Tanh: return hyperbolic_tangent(x);
    case Function::Sigmoid: return sigmoid(x);
    case Function::Gelu: return 0.5f * x * (1.f + erff(x * 0.70710678118654752f));
    case Function::GeluTanh:
      return 0.5f * x * (1.f + hyperbolic_tangent(0.7978845608028654f * fmaf(0.044715f * x * x, x, x)));
    case Function::LeakyRelu: return x < 0.f ? alpha * x : x;
    case Function::Elu: return x < 0.f ? alpha * expm1f(x) : x;
    default: return x;
  }
}

// What softmax (whole.cuh) makes of a row of which the first lanes of a warp have an element each, in its order.
template <u32 kColumns>
__device__ float softmax_across_lanes(float x) {
  float row[kColumns];
#pragma unroll
  for (u32 k = 0; k < kColumns; ++k) row[k] = from_lane(x, k);
  float greatest = row[0];
#pragma unroll
  for (u32 k = 1; k < kColumns; ++k) greatest = row[k] > greatest || row[k] != row[k] ? row[k] : greatest;
  float all = 0;
#pragma unroll
  for (u32 k = 0; k < kColumns; ++k) all += exponential(row[k] - greatest);
  return exponential(x - greatest) * reciprocal(all);
}

}  // namespace resident
}  // namespace tickrt
