// What the host hands to the kernels. src/backend/tensorrt.rs and src/backend/mod.rs have the same structures in Rust;
// a test compares their sizes and offsets through tickrt_layout.
#pragma once

#include <cstdint>

namespace tickrt {

constexpr unsigned kMaxTensors = 8;

// As src/tensor.rs numbers them.
enum class DataType : uint32_t { F32, F16, BF16, F64, I8, U8, I16, I32, I64, Bool };

enum class NonFinite : uint32_t { Pass, Replace, Refuse };

// Bits of State::status.
constexpr uint32_t kStatusNonFiniteInput = 1;
constexpr uint32_t kStatusExpired = 2;  // launched ahead of its call, which did not come in time

// One call: mapped host memory.
struct alignas(64) SlotHeader {
  uint64_t sequence;  // written last: to a launch ahead of its call, the sign to begin, unless its input is in band
  uint64_t awaited;   // the sequence that a launch ahead is for
  uint32_t window;    // 1: the input comes from a ring and the slot's newest rows
  uint32_t symbol;
  uint32_t new_rows;  // at the end of the slot's input memory
  uint32_t oldest;    // place of the window's oldest row in the ring
};

// What normalize leaves for publish: device memory. The sequence crosses PCIe once, in normalize.
struct State {
  uint64_t sequence;
  uint32_t status;
  uint32_t unused;
  uint64_t came;  // launched ahead: the last call of which the block that asks the host has told the others
};

// Division by a number that the host knows, of numbers below 2^31: two instructions instead of some twenty.
struct Divisor {
  uint32_t divisor;
  uint32_t multiplier;
  uint32_t shift;
};

struct NormalizeTensor {
  uint64_t source;       // the slot's input memory, as the device sees it
  uint64_t destination;  // TensorRT's binding
  uint64_t means;        // double[stat_count]
  uint64_t stds;         // double[stat_count]
  double mean;           // the first of them: where there is one for all, nothing need be fetched
  double std;
  uint64_t ring;         // [symbols][rows][row], in the input's type; 0 without windows
  uint32_t count;        // elements
  uint32_t spatial;      // positions of a sample when channels move to the front; else 1
  Divisor channels;      // of a sample, then; else 1
  Divisor sample;        // spatial * channels
  Divisor stat_inner;
  Divisor stat_count;
  DataType input_type;
  DataType output_type;
  NonFinite non_finite;
  uint32_t copy_bytes;   // not 0: this many bytes go through untouched
  float lowest;
  float highest;
  float replacement;
  uint32_t rows;         // of a window
  Divisor row;           // elements of a row; 1 without windows
};

// src/backend/tensorrt/params.rs says the same of its own.
static_assert(sizeof(NormalizeTensor) == 160, "the structure in Rust has this size");

struct NormalizeParams {
  uint64_t header;  // SlotHeader
  uint64_t state;   // State
  uint32_t tensor_count;
  uint32_t patience_us;  // of a launch ahead of its call: how long it waits for it; 0: the call is there
  NormalizeTensor tensors[kMaxTensors];
};

// What comes before and in tensors[0]: all there is to a network with one input.
struct NormalizeOneParams {
  uint64_t header;
  uint64_t state;
  uint32_t tensor_count;
  uint32_t patience_us;
  NormalizeTensor tensor;
};

// What becomes of one element of a small input.
struct Element {
  float mean;
  float std;
  uint32_t to;  // its place in the network's input
  uint32_t unused;
};

// A small input: one line of parameters, and the rest from a table.
struct SmallParams {
  uint64_t header;       // SlotHeader
  uint64_t state;        // State
  uint64_t source;       // the slot's input memory; in band: its units, an even number of them
  uint64_t destination;  // TensorRT's binding
  uint64_t elements;     // Element[count]; nothing where words are copied
  uint32_t count;        // elements; words where they are copied
  uint32_t patience_us;  // in band: how long to wait for the call
  NonFinite non_finite;
  float lowest;
  float highest;
  float replacement;
};

struct PublishTensor {
  uint64_t source;       // TensorRT's binding
  uint64_t destination;  // the slot's output memory, as the device sees it
  uint32_t count;        // elements; bytes where nothing is converted
  DataType convert_from; // F16 or BF16, to f32; anything else: bytes go through
};

struct PublishParams {
  uint64_t state;  // State
  uint64_t done;   // tickrt_publish: the slot's flag, sequence << 16 | status
                   // tickrt_publish_in_band, _words: its units, each (sequence << 8 | status) << 32 | 4 bytes of the answer
  uint32_t tensor_count;
  uint32_t unused;
  PublishTensor tensors[kMaxTensors];
};

// What comes before and in tensors[0]: all there is to a network with one output.
struct PublishOneParams {
  uint64_t state;
  uint64_t done;
  uint32_t tensor_count;
  uint32_t unused;
  PublishTensor tensor;
};

}  // namespace tickrt
