/* Stand-ins for the functions of CUDA's libraries that must do something for ONNX Runtime's CUDA provider to start, place nodes and hold
 * device memory. "Device memory" is the host's, so copies are real; streams, events and handles are blocks that nobody reads; kernels do
 * nothing, so results are whatever their memory held. build.py adds every other function, which returns 0: success.
 *
 * LSQC_STAND_IN_DEVICES=0 in the environment makes a machine that has the libraries and no GPU.
 */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* Error codes of CUDA's runtime and driver; both count them alike here. */
enum { SUCCESS = 0, OUT_OF_MEMORY = 2, NO_DEVICE = 100, INVALID_DEVICE = 101 };

/* CUDA 13, and a device that every kernel is built for. */
enum { VERSION = 13000, CUDNN_VERSION = 91400, MAJOR = 9, MINOR = 0, MULTIPROCESSORS = 132, THREADS = 1024, WARP = 32 };
static const char NAME[] = "stand-in";
static const size_t MEMORY = (size_t)80 << 30, SHARED = 48 << 10, SHARED_OPT_IN = 227 << 10;

static int devices(void) {
    const char *asked = getenv("LSQC_STAND_IN_DEVICES");
    return asked ? atoi(asked) : 1;
}

static int allocate(void **pointer, size_t bytes) {
    const size_t alignment = 256; /* as cudaMalloc promises */
    *pointer = aligned_alloc(alignment, (bytes + alignment) / alignment * alignment);
    return *pointer ? SUCCESS : OUT_OF_MEMORY;
}

static int release(void *pointer) {
    free(pointer);
    return SUCCESS;
}

/* ---- the driver, which lsqc itself asks for a device ---- */

int cuInit(unsigned flags) { return devices() > 0 ? SUCCESS : NO_DEVICE; }
int cuDeviceGetCount(int *count) { *count = devices(); return SUCCESS; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return ordinal < devices() ? SUCCESS : INVALID_DEVICE; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = MEMORY; return SUCCESS; }
int cuDeviceGetName(char *name, int size, int device) {
    strncpy(name, NAME, (size_t)size);
    return SUCCESS;
}

/* ---- what the machine is ---- */

/* The head of CUDA 13's cudaDeviceProp; the whole is 1008 bytes. */
struct properties {
    char name[256], uuid[16], luid[8];
    unsigned luid_mask;
    size_t memory, shared_per_block;
    int registers_per_block, warp_size;
    size_t pitch;
    int threads_per_block, threads_dim[3], grid_size[3];
    size_t constant_memory;
    int major, minor;
    size_t texture_alignment, texture_pitch;
    int multiprocessors;
    char between[604 - 388];
    int threads_per_multiprocessor;
    char more[672 - 608];
    size_t shared_opt_in;
    char rest[1008 - 680];
};
_Static_assert(offsetof(struct properties, multiprocessors) == 384, "the layout is CUDA 13's");
_Static_assert(offsetof(struct properties, threads_per_multiprocessor) == 604, "the layout is CUDA 13's");
_Static_assert(offsetof(struct properties, shared_opt_in) == 672, "the layout is CUDA 13's");
_Static_assert(sizeof(struct properties) == 1008, "the layout is CUDA 13's");

int cudaGetDeviceProperties(struct properties *found, int device) {
    struct properties made = {
        .memory = MEMORY, .shared_per_block = SHARED, .shared_opt_in = SHARED_OPT_IN, .registers_per_block = 65536, .warp_size = WARP,
        .threads_per_block = THREADS, .threads_dim = {THREADS, THREADS, 64}, .grid_size = {2147483647, 65535, 65535},
        .major = MAJOR, .minor = MINOR, .multiprocessors = MULTIPROCESSORS, .threads_per_multiprocessor = 2 * THREADS,
    };
    strcpy(made.name, NAME);
    *found = made;
    return SUCCESS;
}

int cudaDeviceGetAttribute(int *value, int attribute, int device) {
    enum { MULTIPROCESSOR_COUNT = 16, COMPUTE_MAJOR = 75, COMPUTE_MINOR = 76 };
    *value = attribute == COMPUTE_MAJOR ? MAJOR
           : attribute == COMPUTE_MINOR ? MINOR
           : attribute == MULTIPROCESSOR_COUNT ? MULTIPROCESSORS
                                               : THREADS;
    return SUCCESS;
}

int cudaGetDeviceCount(int *count) { *count = devices(); return *count > 0 ? SUCCESS : NO_DEVICE; }
int cudaGetDevice(int *device) { *device = 0; return SUCCESS; }
int cudaSetDevice(int device) { return device < devices() ? SUCCESS : NO_DEVICE; }
int cudaDriverGetVersion(int *version) { *version = VERSION; return SUCCESS; }
int cudaRuntimeGetVersion(int *version) { *version = VERSION; return SUCCESS; }
int cudaMemGetInfo(size_t *available, size_t *total) { *available = *total = MEMORY; return SUCCESS; }
size_t cudnnGetVersion(void) { return CUDNN_VERSION; }
size_t cudnnGetCudartVersion(void) { return VERSION; }

/* ---- memory ---- */

int cudaMalloc(void **pointer, size_t bytes) { return allocate(pointer, bytes); }
int cudaMallocHost(void **pointer, size_t bytes) { return allocate(pointer, bytes); }
int cudaHostAlloc(void **pointer, size_t bytes, unsigned flags) { return allocate(pointer, bytes); }
int cudaMallocFromPoolAsync(void **pointer, size_t bytes, void *pool, void *stream) { return allocate(pointer, bytes); }
int cudaFree(void *pointer) { return release(pointer); }
int cudaFreeHost(void *pointer) { return release(pointer); }
int cudaFreeAsync(void *pointer, void *stream) { return release(pointer); }

int cudaMemcpy(void *to, const void *from, size_t bytes, int kind) {
    memcpy(to, from, bytes);
    return SUCCESS;
}
int cudaMemcpyAsync(void *to, const void *from, size_t bytes, int kind, void *stream) { return cudaMemcpy(to, from, bytes, kind); }
int cudaMemset(void *to, int byte, size_t bytes) {
    memset(to, byte, bytes);
    return SUCCESS;
}
int cudaMemsetAsync(void *to, int byte, size_t bytes, void *stream) { return cudaMemset(to, byte, bytes); }

int cudaPointerGetAttributes(int *attributes, const void *pointer) {
    enum { TYPE_DEVICE = 2, SIZE = 88 };
    memset(attributes, 0, SIZE);
    attributes[0] = TYPE_DEVICE;
    return SUCCESS;
}

/* ---- what is looked at before a kernel starts ---- */

int cudaStreamIsCapturing(void *stream, int *status) { *status = 0; return SUCCESS; }
int cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, const void *kernel, int threads, size_t shared, unsigned flags) {
    *blocks = 1;
    return SUCCESS;
}
int cudaGetDriverEntryPointByVersion(const char *symbol, void **function, unsigned version, unsigned long long flags, int *result) {
    enum { SYMBOL_NOT_FOUND = 1 };
    *function = NULL;
    if (result) *result = SYMBOL_NOT_FOUND;
    return SUCCESS;
}
int cudaLibraryLoadData(void **library) { return allocate(library, 64); }
int cudaLibraryGetKernel(void **kernel) { return allocate(kernel, 64); }
void **__cudaRegisterFatBinary(void *binary) {
    static void *handle[8];
    return handle;
}

/* cuDNN: one answer to every question, and no engine that could run a convolution. */
int cudnnBackendCreateDescriptor(int type, void **descriptor) { return allocate(descriptor, 64); }
int cudnnBackendGetAttribute(void *descriptor, int name, int type, long wanted, long *count, void *elements) {
    enum { TYPE_INT64 = 3 };
    if (count) *count = 1;
    if (elements && wanted > 0 && type == TYPE_INT64) *(long *)elements = 0;
    return SUCCESS;
}

/* ---- texts of errors ---- */

const char *cudaGetErrorString(int error) { return error == NO_DEVICE ? "no CUDA-capable device is detected" : NAME; }
const char *cudaGetErrorName(int error) { return error == NO_DEVICE ? "cudaErrorNoDevice" : NAME; }
const char *cublasGetStatusName(int status) { return NAME; }
const char *cublasGetStatusString(int status) { return NAME; }
const char *cudnnGetErrorString(int status) { return NAME; }
void cudnnGetLastErrorString(char *message, size_t size) {
    if (size) *message = 0;
}
