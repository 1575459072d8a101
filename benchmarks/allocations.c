/* Counts the blocks that all threads of a process request of malloc. memory.py preloads it. Needs glibc. */

#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>

enum { SMALLEST = 1024 }; /* bytes: more than Python's own objects, less than an array of pixels */

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *block, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);

static atomic_long blocks, bytes;

long benchmark_blocks(void) { return atomic_load(&blocks); }
long benchmark_bytes(void) { return atomic_load(&bytes); }

static void note(size_t size) {
  if (size < SMALLEST) return;
  atomic_fetch_add_explicit(&blocks, 1, memory_order_relaxed);
  atomic_fetch_add_explicit(&bytes, (long)size, memory_order_relaxed);
}

void *malloc(size_t size) {
  note(size);
  return __libc_malloc(size);
}

void *calloc(size_t count, size_t size) {
  note(count * size); /* on overflow calloc fails, and nothing is allocated */
  return __libc_calloc(count, size);
}

void *realloc(void *block, size_t size) {
  note(size);
  return __libc_realloc(block, size);
}

void *memalign(size_t alignment, size_t size) {
  note(size);
  return __libc_memalign(alignment, size);
}

void *aligned_alloc(size_t alignment, size_t size) { return memalign(alignment, size); }

int posix_memalign(void **block, size_t alignment, size_t size) {
  void *made = memalign(alignment, size);
  if (made == NULL) return ENOMEM;
  *block = made;
  return 0;
}
