// Stands in for CUDA's header of this name, of which TensorRT's headers use two opaque pointers and nothing else: so
// the shims compile where no CUDA toolkit is, and in the same way everywhere.
#pragma once

typedef struct CUstream_st* cudaStream_t;
typedef struct CUevent_st* cudaEvent_t;
