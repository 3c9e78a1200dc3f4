/* A driver of CUDA with two GPUs of host memory, for the real bindings and for the probe.

   Calls need a context that is current in their thread and still retained. What a stream is given is done
   when somebody waits for it. The environment says what is wrong with it:
   FAKE_CUDA_FAIL=cuMemAlloc:2,cuInit:999  calls that are refused, and with which code
   FAKE_CUDA_GPUS=0                        how many GPUs there are
   FAKE_CUDA_VERSION=12040                 of the driver
   FAKE_CUDA_WAIT_MS=200                   how long cuStreamSynchronize takes; may change meanwhile */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

typedef unsigned long long u64;
enum { OK = 0, INVALID = 1, MEMORY = 2, DEVICE = 101, CONTEXT = 201, HANDLE = 400, CAPTURING = 900 };
enum { DEVICE_MEMORY, HOST_MEMORY, STREAM, EVENT, GRAPH, EXECUTABLE, KINDS };

typedef struct Thing Thing;
typedef struct Work {
  void *to;
  const void *from;
  size_t bytes;
  Thing *event;
  struct Work *next;
} Work;
struct Thing {
  int kind, capturing;
  size_t bytes;
  void *memory;
  Work *work;
  double time;
  Thing *stream, *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static Thing *things;
static int retained, initialised, count[KINDS];
static __thread int depth;
static const u64 TOTAL = 1ull << 30;

static int number(const char *name, int otherwise) {
  const char *text = getenv(name);
  return text ? atoi(text) : otherwise;
}

static int refused(const char *call) {
  const char *list = getenv("FAKE_CUDA_FAIL");
  size_t length = strlen(call);
  for (const char *at = list; at && *at; at = strchr(at, ',') ? strchr(at, ',') + 1 : "")
    if (!strncmp(at, call, length) && at[length] == ':') return atoi(at + length + 1);
  return 0;
}

#define ANY(call) { int code = refused(#call); if (code) return code; }
#define NEEDS_CONTEXT(call) ANY(call) if (!depth || !retained) return CONTEXT;
#define LOCKED(code) ({ pthread_mutex_lock(&lock); int result_ = (code); pthread_mutex_unlock(&lock); result_; })

static Thing *make(int kind, size_t bytes) {
  Thing *made = calloc(1, sizeof *made);
  made->kind = kind, made->bytes = bytes, made->memory = bytes ? malloc(bytes) : NULL;
  pthread_mutex_lock(&lock);
  made->next = things, things = made, count[kind]++;
  pthread_mutex_unlock(&lock);
  return made;
}

static Thing *find(int kind, void *handle) { /* memory by its address, all else by itself */
  Thing *each = NULL;
  pthread_mutex_lock(&lock);
  for (each = things; each; each = each->next)
    if (each->kind == kind && (kind <= HOST_MEMORY ? each->memory : each) == handle) break;
  pthread_mutex_unlock(&lock);
  return each;
}

static int end(int kind, void *handle) {
  Thing *found = find(kind, handle);
  if (!found) return HANDLE;
  pthread_mutex_lock(&lock);
  Thing **at = &things;
  while (*at != found) at = &(*at)->next;
  *at = found->next, count[kind]--;
  pthread_mutex_unlock(&lock);
  if (found->memory) memset(found->memory, 0xCD, found->bytes); /* kept: a use of it reads this */
  return OK;
}

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1e3 + time.tv_nsec / 1e6;
}

static void add(Thing *stream, Work work) {
  Work **at = &stream->work;
  while (*at) at = &(*at)->next;
  *at = memcpy(malloc(sizeof work), &work, sizeof work);
}

static void run(Work *work) {
  for (; work; work = work->next)
    if (work->event) work->event->time = now();
    else memcpy(work->to, work->from, work->bytes);
}

static int wait_for(Thing *stream) {
  if (stream->capturing) return CAPTURING;
  run(stream->work), stream->work = NULL;
  return OK;
}

int cuInit(unsigned flags) { ANY(cuInit) initialised = 1; return flags; }
int cuDriverGetVersion(int *version) {
  ANY(cuDriverGetVersion)
  *version = number("FAKE_CUDA_VERSION", 13000);
  return OK;
}
int cuDeviceGetCount(int *n) {
  ANY(cuDeviceGetCount)
  *n = number("FAKE_CUDA_GPUS", 2);
  return initialised ? OK : 3;
}
int cuDeviceGet(int *device, int ordinal) {
  ANY(cuDeviceGet)
  *device = ordinal;
  return ordinal < number("FAKE_CUDA_GPUS", 2) ? OK : DEVICE;
}
int cuDeviceGetName(char *name, int length, int device) {
  ANY(cuDeviceGetName)
  snprintf(name, length, "Fake H200 %d", device);
  return OK;
}
int cuDeviceGetAttribute(int *value, int attribute, int device) {
  ANY(cuDeviceGetAttribute)
  *value = attribute == 75 ? 9 : attribute == 76 ? device : attribute == 16 ? 132 : -1;
  return OK;
}
int cuDeviceTotalMem_v2(size_t *bytes, int device) {
  ANY(cuDeviceTotalMem)
  *bytes = TOTAL + device;
  return OK;
}
int cuDevicePrimaryCtxRetain(void **context, int device) {
  ANY(cuDevicePrimaryCtxRetain)
  *context = &retained;
  LOCKED(retained++);
  return device > 1;
}
int cuDevicePrimaryCtxRelease_v2(int device) {
  ANY(cuDevicePrimaryCtxRelease)
  return LOCKED(--retained < 0) + 0 * device;
}
int cuCtxPushCurrent_v2(void *context) {
  ANY(cuCtxPushCurrent)
  depth++;
  return context == &retained ? OK : CONTEXT;
}
int cuCtxPopCurrent_v2(void **context) {
  ANY(cuCtxPopCurrent)
  if (!depth) return CONTEXT;
  depth--;
  if (context) *context = &retained;
  return OK;
}
int cuCtxSynchronize(void) {
  NEEDS_CONTEXT(cuCtxSynchronize)
  for (Thing *each = things; each; each = each->next) if (each->kind == STREAM) wait_for(each);
  return OK;
}

int cuMemGetInfo_v2(size_t *free, size_t *total) {
  NEEDS_CONTEXT(cuMemGetInfo)
  pthread_mutex_lock(&lock);
  *free = *total = TOTAL;
  for (Thing *each = things; each; each = each->next) if (each->kind == DEVICE_MEMORY) *free -= each->bytes;
  pthread_mutex_unlock(&lock);
  return OK;
}
int cuMemAlloc_v2(void **address, size_t bytes) {
  size_t free, total;
  NEEDS_CONTEXT(cuMemAlloc)
  if (!bytes) return INVALID;
  if (cuMemGetInfo_v2(&free, &total) || bytes > free) return MEMORY;
  *address = make(DEVICE_MEMORY, bytes)->memory;
  return OK;
}
int cuMemFree_v2(void *address) { NEEDS_CONTEXT(cuMemFree) return end(DEVICE_MEMORY, address); }
int cuMemHostAlloc(void **address, size_t bytes, unsigned flags) {
  NEEDS_CONTEXT(cuMemHostAlloc)
  if (!bytes || flags) return INVALID;
  if (bytes > TOTAL) return MEMORY;
  *address = make(HOST_MEMORY, bytes)->memory;
  return OK;
}
int cuMemFreeHost(void *address) { NEEDS_CONTEXT(cuMemFreeHost) return end(HOST_MEMORY, address); }

int cuStreamCreate(void **stream, unsigned flags) {
  NEEDS_CONTEXT(cuStreamCreate)
  if (flags != 1) return INVALID;
  *stream = make(STREAM, 0);
  return OK;
}
int cuStreamSynchronize(void *stream) {
  NEEDS_CONTEXT(cuStreamSynchronize)
  for (int ms = 0; ms < number("FAKE_CUDA_WAIT_MS", 0); ms++) usleep(1000);
  return find(STREAM, stream) ? wait_for(stream) : HANDLE;
}
int cuStreamDestroy_v2(void *stream) { NEEDS_CONTEXT(cuStreamDestroy) return end(STREAM, stream); }

int cuEventCreate(void **event, unsigned flags) {
  NEEDS_CONTEXT(cuEventCreate)
  if (flags) return INVALID;
  *event = make(EVENT, 0);
  return OK;
}
int cuEventRecord(void *event, void *stream) {
  NEEDS_CONTEXT(cuEventRecord)
  if (!find(EVENT, event) || !find(STREAM, stream)) return HANDLE;
  ((Thing *)event)->stream = stream;
  add(stream, (Work){.event = event});
  return OK;
}
int cuEventSynchronize(void *event) {
  NEEDS_CONTEXT(cuEventSynchronize)
  Thing *found = find(EVENT, event);
  return !found ? HANDLE : found->stream ? wait_for(found->stream) : OK;
}
int cuEventElapsedTime_v2(float *ms, void *first, void *second) {
  NEEDS_CONTEXT(cuEventElapsedTime)
  if (!find(EVENT, first) || !find(EVENT, second)) return HANDLE;
  *ms = ((Thing *)second)->time - ((Thing *)first)->time;
  return OK;
}
int cuEventDestroy_v2(void *event) { NEEDS_CONTEXT(cuEventDestroy) return end(EVENT, event); }

static int copy(int kind, void *device, void *to, const void *from, size_t bytes, void *stream) {
  Thing *memory = find(kind, device);
  if (!memory || !find(STREAM, stream)) return HANDLE;
  if (bytes > memory->bytes) return INVALID;
  add(stream, (Work){to, from, bytes, NULL, NULL});
  return OK;
}
int cuMemcpyHtoDAsync_v2(void *to, void *from, size_t bytes, void *stream) {
  NEEDS_CONTEXT(cuMemcpyHtoDAsync)
  return copy(DEVICE_MEMORY, to, to, from, bytes, stream);
}
int cuMemcpyDtoHAsync_v2(void *to, void *from, size_t bytes, void *stream) {
  NEEDS_CONTEXT(cuMemcpyDtoHAsync)
  return copy(DEVICE_MEMORY, from, to, from, bytes, stream);
}

int cuStreamBeginCapture_v2(void *stream, int mode) {
  NEEDS_CONTEXT(cuStreamBeginCapture)
  if (!find(STREAM, stream) || mode != 1) return INVALID;
  ((Thing *)stream)->capturing = 1;
  return OK;
}
int cuStreamEndCapture(void *stream, void **graph) {
  NEEDS_CONTEXT(cuStreamEndCapture)
  Thing *found = find(STREAM, stream), *made = make(GRAPH, 0);
  made->work = found->work, found->work = NULL, found->capturing = 0;
  *graph = made;
  return OK;
}
int cuGraphInstantiateWithFlags(void **executable, void *graph, u64 flags) {
  NEEDS_CONTEXT(cuGraphInstantiate)
  if (!find(GRAPH, graph) || flags) return INVALID;
  Thing *made = make(EXECUTABLE, 0);
  made->work = ((Thing *)graph)->work;
  *executable = made;
  return OK;
}
int cuGraphDestroy(void *graph) { NEEDS_CONTEXT(cuGraphDestroy) return end(GRAPH, graph); }
int cuGraphExecDestroy(void *graph) {
  NEEDS_CONTEXT(cuGraphExecDestroy)
  return end(EXECUTABLE, graph);
}
int cuGraphLaunch(void *graph, void *stream) {
  NEEDS_CONTEXT(cuGraphLaunch)
  if (!find(EXECUTABLE, graph) || !find(STREAM, stream)) return HANDLE;
  for (Work *each = ((Thing *)graph)->work; each; each = each->next) {
    Work again = *each;
    again.next = NULL;
    add(stream, again);
  }
  return OK;
}

int cuGetErrorString(int code, const char **text) {
  *text = code == MEMORY    ? "out of memory"
          : code == INVALID ? "invalid argument"
          : code == CONTEXT ? "invalid device context"
          : code == HANDLE  ? "invalid resource handle"
          : code == 700     ? "an illegal memory access was encountered"
                            : "unknown error";
  return OK;
}
int cuGetErrorName(int code, const char **name) {
  *name = code ? "CUDA_ERROR_UNKNOWN" : "CUDA_SUCCESS";
  return OK;
}

int cuGetProcAddress_v2(const char *symbol, void **function, int version, u64 flags, int *status) {
  char name[128];
  const char *endings[] = {"_v2", "", "WithFlags"};
  (void)version, (void)flags, *function = NULL;
  for (int i = 0; i < 3 && !*function; i++) {
    snprintf(name, sizeof name, "%s%s", symbol, endings[i]);
    *function = dlsym(RTLD_DEFAULT, name);
  }
  if (status) *status = *function ? 0 : 1;
  return *function ? OK : 500;
}

/* What is left, for tests: things of each kind, retained contexts, contexts of this thread. */
void fake_cuda_state(int *state) {
  memcpy(state, count, sizeof count);
  state[KINDS] = retained, state[KINDS + 1] = depth;
}
