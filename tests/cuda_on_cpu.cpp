// kernels.cu compiled as C++, behind the few functions of the NVIDIA driver that nvrtc.py calls: the kernels' very source
// runs on the CPU, one thread after the other, launched by the very code that launches it on a GPU.

#include <cmath>
#include <cstddef>
#include <cstring>
#include <utility>

struct Index {
    unsigned x, y, z;
};
static thread_local Index threadIdx, blockIdx, blockDim, gridDim;

#define __global__
#define __device__
#define __restrict__ __restrict
static inline void atomicAdd(float *sum, float value) { *sum += value; }
static inline void atomicMin(long long *least, long long value) { *least = value < *least ? value : *least; }

#include "kernels.cu"

namespace {

// Calls a kernel with arguments as cuLaunchKernel gets them: an array of pointers to them.
template <auto kernel, class... A, std::size_t... I>
void call(void (*)(A...), void **arguments, std::index_sequence<I...>)
{
    kernel(*static_cast<A *>(arguments[I])...);
}

template <auto kernel, class... A>
void unpack(void (*type)(A...), void **arguments)
{
    call<kernel>(type, arguments, std::index_sequence_for<A...>{});
}

template <auto kernel>
void thread(void **arguments)
{
    unpack<kernel>(kernel, arguments);
}

using Thread = void (*)(void **);
const std::pair<const char *, Thread> KERNELS[] = {
    {"hash_encode", thread<hash_encode>},     {"hash_encode_backward", thread<hash_encode_backward>},
    {"march_count", thread<march_count>},     {"march_fill", thread<march_fill>},
    {"composite", thread<composite>},         {"composite_backward", thread<composite_backward>},
    {"rasterize", thread<rasterize>},
};

const int NOT_FOUND = 500;  // CUDA_ERROR_NOT_FOUND

}  // namespace

extern "C" {

int cuInit(unsigned) { return 0; }
int cuDeviceGet(int *device, int) { return *device = 0; }
int cuDevicePrimaryCtxRetain(void **, int) { return 0; }
int cuCtxSetCurrent(void *) { return 0; }
int cuModuleLoadData(void **, const void *) { return 0; }

int cuGetErrorString(int, const char **text)
{
    *text = "named symbol not found";
    return 0;
}

int cuModuleGetFunction(void **function, void *, const char *name)
{
    for (const auto &[known, thread] : KERNELS)
        if (!std::strcmp(known, name)) {
            *function = reinterpret_cast<void *>(thread);
            return 0;
        }
    return NOT_FOUND;
}

int cuLaunchKernel(void *function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
                   unsigned block_z, unsigned, void *, void **arguments, void **)
{
    gridDim = {grid_x, grid_y, grid_z};
    blockDim = {block_x, block_y, block_z};
    for (blockIdx.y = 0; blockIdx.y < grid_y; ++blockIdx.y)
        for (blockIdx.x = 0; blockIdx.x < grid_x; ++blockIdx.x)
            for (threadIdx.x = 0; threadIdx.x < block_x; ++threadIdx.x) reinterpret_cast<Thread>(function)(arguments);
    return 0;
}
}
