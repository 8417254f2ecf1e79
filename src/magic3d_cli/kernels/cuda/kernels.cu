// The hot operations for NVIDIA GPUs: the twins of the numba kernels in hash_encode.py, march.py and rasterize.py.
//
// NVRTC compiles this file when it is first needed (nvrtc.py); the tests also compile it as C++ and run it on the CPU.
// Hence no headers, and nothing of CUDA beyond thread indices and atomics. Arrays are contiguous and row-major.

typedef long long i64;
typedef unsigned int u32;

// Passed by value, so that a launch needs no copy to the device. Its length is MOST_LEVELS in nvrtc.py.
struct Levels {
    int resolution[32];  // cells per side of each level
};

__device__ inline i64 thread_index() { return (i64)blockIdx.x * blockDim.x + threadIdx.x; }

// ---- hash encoding [Instant-NGP, section 3] ----

struct Corners {
    u32 index[8];  // rows of the level's table; corner 4 x + 2 y + z
    float weight[8];
};

__device__ inline Corners corners_around(const float *point, int resolution, i64 size)
{
    const u32 side = resolution + 1;
    const bool dense = (i64)side * side * side <= size;
    const u32 factor[3] = {1u, dense ? side : 2654435761u, dense ? side * side : 805459861u};
    u32 term[3][2];
    float fraction[3][2];
    for (int axis = 0; axis < 3; ++axis) {
        const float scaled = fminf(fmaxf(point[axis], 0.0f), 1.0f) * (float)resolution;
        u32 cell = (u32)scaled;
        if (cell > side - 2u) cell = side - 2u;
        // Products wrap at 2^32. The reference's are 64 bits wide: below the mask, the same.
        term[axis][0] = cell * factor[axis];
        term[axis][1] = (cell + 1u) * factor[axis];
        fraction[axis][1] = scaled - (float)cell;
        fraction[axis][0] = 1.0f - fraction[axis][1];
    }
    Corners corners;
    for (int c = 0; c < 8; ++c) {
        const int x = c >> 2, y = (c >> 1) & 1, z = c & 1;
        corners.index[c] = dense ? term[0][x] + term[1][y] + term[2][z]
                                 : (term[0][x] ^ term[1][y] ^ term[2][z]) & (u32)(size - 1);
        corners.weight[c] = fraction[0][x] * fraction[1][y] * fraction[2][z];
    }
    return corners;
}

// A thread a point, a row of blocks a level: blocks that run together then read one level, which stays in the cache.
extern "C" __global__ void hash_encode(
    const float *__restrict__ points,  // count 3
    const float *__restrict__ table,   // levels size width
    Levels levels, i64 count, i64 size, i64 width,
    float *__restrict__ features)  // count levels*width
{
    const i64 n = thread_index(), level = blockIdx.y;
    if (n >= count) return;
    const Corners corners = corners_around(points + 3 * n, levels.resolution[level], size);
    const float *entries = table + level * size * width;
    float *row = features + (n * gridDim.y + level) * width;
    for (i64 f = 0; f < width; ++f) {
        float sum = 0.0f;
        for (int c = 0; c < 8; ++c) sum += entries[corners.index[c] * width + f] * corners.weight[c];
        row[f] = sum;
    }
}

// Several threads add to one entry, in an order that changes from run to run, and with it the last bits.
extern "C" __global__ void hash_encode_backward(
    const float *__restrict__ points,  // count 3
    const float *__restrict__ grad,    // count levels*width
    Levels levels, i64 count, i64 size, i64 width,
    float *__restrict__ table_grad)  // levels size width, zeros
{
    const i64 n = thread_index(), level = blockIdx.y;
    if (n >= count) return;
    const Corners corners = corners_around(points + 3 * n, levels.resolution[level], size);
    float *entries = table_grad + level * size * width;
    const float *row = grad + (n * gridDim.y + level) * width;
    for (i64 f = 0; f < width; ++f)
        for (int c = 0; c < 8; ++c) atomicAdd(&entries[corners.index[c] * width + f], row[f] * corners.weight[c]);
}

// ---- ray marching ----

struct Ray {
    float origin[3], direction[3], entry, leave;  // where it enters and leaves [-1, 1]^3; entry > leave if it misses
};

__device__ inline Ray ray_through_box(const float *origins, const float *directions, i64 r)
{
    Ray ray;
    ray.entry = 0.0f;
    ray.leave = 1e30f;
    for (int axis = 0; axis < 3; ++axis) {
        const float origin = origins[3 * r + axis], direction = directions[3 * r + axis];
        const float inverse = 1.0f / (fabsf(direction) < 1e-9f ? 1e-9f : direction);
        const float low = (-1.0f - origin) * inverse, high = (1.0f - origin) * inverse;
        ray.entry = fmaxf(ray.entry, fminf(low, high));
        ray.leave = fminf(ray.leave, fmaxf(low, high));
        ray.origin[axis] = origin;
        ray.direction[axis] = direction;
    }
    return ray;
}

__device__ inline float along(const Ray &ray, int k, float jitter, float step)
{
    return ray.entry + ((float)k + jitter) * step;
}

__device__ inline bool occupied(const Ray &ray, float t, const bool *occupancy, int size)
{
    i64 cell = 0;
    for (int axis = 0; axis < 3; ++axis) {
        const int i = (int)((ray.origin[axis] + t * ray.direction[axis] + 1.0f) * (0.5f * (float)size));
        cell = cell * size + (i < 0 ? 0 : i >= size ? size - 1 : i);
    }
    return occupancy[cell];
}

// A thread a ray: first the samples are counted, then, with room made for them, the same walk writes them. `most` points
// reach across the box; only a direction that is not of unit length would have more, and keep the GPU for ever.
extern "C" __global__ void march_count(
    const float *__restrict__ origins, const float *__restrict__ directions,  // rays 3
    const bool *__restrict__ occupancy,                                       // size size size
    const float *__restrict__ jitter,                                         // rays
    i64 rays, i64 size, i64 most, float step,
    i64 *__restrict__ counts)  // rays
{
    const i64 r = thread_index();
    if (r >= rays) return;
    const Ray ray = ray_through_box(origins, directions, r);
    i64 count = 0;
    float t = along(ray, 0, jitter[r], step);
    for (int k = 0; t < ray.leave && k < most; t = along(ray, ++k, jitter[r], step))
        count += occupied(ray, t, occupancy, (int)size);
    counts[r] = count;
}

extern "C" __global__ void march_fill(
    const float *__restrict__ origins, const float *__restrict__ directions,  // rays 3
    const bool *__restrict__ occupancy,                                       // size size size
    const float *__restrict__ jitter,                                         // rays
    const i64 *__restrict__ offsets,                                          // rays+1
    i64 rays, i64 size, i64 most, float step,
    float *__restrict__ points, i64 *__restrict__ ray_of, float *__restrict__ depth)  // N 3, N, N
{
    const i64 r = thread_index();
    if (r >= rays) return;
    const Ray ray = ray_through_box(origins, directions, r);
    i64 n = offsets[r];
    float t = along(ray, 0, jitter[r], step);
    for (int k = 0; t < ray.leave && k < most; t = along(ray, ++k, jitter[r], step)) {
        if (!occupied(ray, t, occupancy, (int)size)) continue;
        for (int axis = 0; axis < 3; ++axis) points[3 * n + axis] = ray.origin[axis] + t * ray.direction[axis];
        ray_of[n] = r;
        depth[n] = t;
        ++n;
    }
}

// ---- compositing [NeRF, eq. 3] ----

// A thread a channel of a ray, and one more a ray for its opacity and weights.
extern "C" __global__ void composite(
    const float *__restrict__ density,  // N
    const float *__restrict__ values,   // N channels
    const float *__restrict__ delta,    // N
    const i64 *__restrict__ offsets,    // rays+1
    i64 rays, i64 channels,
    float *__restrict__ out, float *__restrict__ opacity, float *__restrict__ weights)  // rays channels, rays, N
{
    const i64 r = thread_index() / (channels + 1), c = thread_index() % (channels + 1);
    if (r >= rays) return;
    float transmittance = 1.0f, sum = 0.0f;
    for (i64 n = offsets[r]; n < offsets[r + 1]; ++n) {
        const float optical = density[n] * delta[n];
        const float weight = transmittance * -expm1f(-optical);
        transmittance *= expf(-optical);
        if (c == channels) weights[n] = weight;
        sum += c == channels ? weight : weight * values[n * channels + c];
    }
    if (c == channels) opacity[r] = sum;
    else out[r * channels + c] = sum;
}

// With G_i the loss's derivative by weight_i:
// d loss / d (density_i delta_i) = T_{i+1} G_i - sum_{j > i} weight_j G_j, summed from the back. A thread a ray.
extern "C" __global__ void composite_backward(
    const float *__restrict__ density, const float *__restrict__ values, const float *__restrict__ delta,
    const i64 *__restrict__ offsets, const float *__restrict__ weights,
    const float *__restrict__ grad_out, const float *__restrict__ grad_opacity, const float *__restrict__ grad_weights,
    i64 rays, i64 channels,
    float *__restrict__ grad_density, float *__restrict__ grad_values)
{
    const i64 r = thread_index();
    if (r >= rays) return;
    float transmittance = 1.0f;
    for (i64 n = offsets[r]; n < offsets[r + 1]; ++n) {
        transmittance *= expf(-density[n] * delta[n]);
        grad_density[n] = transmittance;  // T_{i+1}, until the way back replaces it
    }
    float behind = 0.0f;
    for (i64 n = offsets[r + 1] - 1; n >= offsets[r]; --n) {
        float by_weight = grad_opacity[r] + grad_weights[n];
        for (i64 c = 0; c < channels; ++c) {
            by_weight += grad_out[r * channels + c] * values[n * channels + c];
            grad_values[n * channels + c] = weights[n] * grad_out[r * channels + c];
        }
        grad_density[n] = (grad_density[n] * by_weight - behind) * delta[n];
        behind += weights[n] * by_weight;
    }
}

// ---- visible triangles ----

// As in rasterize.py.
const i64 SUBPIXEL = 256, DEPTH_STEPS = 1 << 30, ID_BITS = 31;

__device__ inline i64 at_least(i64 a, i64 b) { return a < b ? b : a; }
__device__ inline i64 at_most(i64 a, i64 b) { return a < b ? a : b; }

// First and last of `size` pixels whose centres, at (n + 1/2) SUBPIXEL, lie between the least and the greatest of three.
__device__ inline void pixels_between(i64 a, i64 b, i64 c, i64 size, i64 &first, i64 &last)
{
    const i64 low = at_most(a, at_most(b, c)), high = at_least(a, at_least(b, c));
    first = low <= SUBPIXEL / 2 ? 0 : (low + SUBPIXEL / 2 - 1) / SUBPIXEL;  // division of what is not negative: floors
    last = high < SUBPIXEL / 2 ? -1 : at_most(size - 1, (high - SUBPIXEL / 2) / SUBPIXEL);
}

// 1 if a triangle of positive area (y down) owns the points on this edge: a top or a left edge.
__device__ inline i64 owns(i64 dx, i64 dy) { return dy < 0 || (dy == 0 && dx > 0); }

// Threads divide a triangle's rows, so that a large one does not keep a single thread busy; images along y.
extern "C" __global__ void rasterize(
    const i64 *__restrict__ xy,        // images vertices 2, subpixels, y down
    const double *__restrict__ depth,  // images vertices
    const bool *__restrict__ usable,   // images vertices
    const i64 *__restrict__ faces,     // count 3
    i64 count, i64 vertices, i64 size, i64 threads_each,
    i64 *__restrict__ nearest)  // images size size: depth and id in one number, the largest at first
{
    const i64 f = thread_index() / threads_each, image = blockIdx.y;
    if (f >= count) return;
    i64 x[3], y[3];
    double z[3];
    for (int corner = 0; corner < 3; ++corner) {
        const i64 vertex = image * vertices + faces[3 * f + corner];
        if (!usable[vertex]) return;
        x[corner] = xy[2 * vertex];
        y[corner] = xy[2 * vertex + 1];
        z[corner] = depth[vertex];
    }
    i64 left, right, top, bottom;
    pixels_between(x[0], x[1], x[2], size, left, right);
    pixels_between(y[0], y[1], y[2], size, top, bottom);
    i64 area = (x[1] - x[0]) * (y[2] - y[0]) - (x[2] - x[0]) * (y[1] - y[0]);
    if (left > right || top > bottom || area == 0) return;
    const int second = area < 0 ? 2 : 1, third = 3 - second;  // one winding for all
    const i64 ax = x[0], ay = y[0], bx = x[second], by = y[second], cx = x[third], cy = y[third];
    area = area < 0 ? -area : area;
    const i64 own_a = owns(cx - bx, cy - by), own_b = owns(ax - cx, ay - cy), own_c = owns(bx - ax, by - ay);
    for (i64 row = top + thread_index() % threads_each; row <= bottom; row += threads_each)
        for (i64 column = left; column <= right; ++column) {
            const i64 px = column * SUBPIXEL + SUBPIXEL / 2, py = row * SUBPIXEL + SUBPIXEL / 2;
            const i64 a = (cx - bx) * (py - by) - (cy - by) * (px - bx);
            const i64 b = (ax - cx) * (py - cy) - (ay - cy) * (px - cx);
            const i64 c = (bx - ax) * (py - ay) - (by - ay) * (px - ax);
            if (a + own_a <= 0 || b + own_b <= 0 || c + own_c <= 0) continue;
            const double value = ((double)a * z[0] + (double)b * z[second] + (double)c * z[third]) / (double)area;
            if (value < -1.0 || value > 1.0) continue;
            const i64 key = (i64)((value + 1.0) * 0.5 * (double)DEPTH_STEPS) << ID_BITS | f;
            atomicMin(&nearest[(image * size + row) * size + column], key);
        }
}
