// A preloaded library that imitates a loss of power: what was not synchronised is lost when its file is renamed.
// $POWER_LOSS_LOG gets a line per rename, and per synchronised folder.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define KEPT 64
static struct stat synced[KEPT];
static int count;

static void note(const char* what, const char* path) {
  const char* log = getenv("POWER_LOSS_LOG");
  FILE* file = log ? fopen(log, "a") : NULL;
  if (!file) return;
  fprintf(file, "%s %s\n", what, path);
  fclose(file);
}

static int is_same(const struct stat* a, const struct stat* b) {
  return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
         a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

int fsync(int file) {
  static int (*real)(int);
  if (!real) real = dlsym(RTLD_NEXT, "fsync");
  struct stat now;
  if (fstat(file, &now) == 0) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    const ssize_t length = readlink(link, path, sizeof path - 1);
    path[length > 0 ? length : 0] = 0;
    if (S_ISDIR(now.st_mode)) note("folder", path);
    else synced[count++ % KEPT] = now;
  }
  return real(file);
}

int rename(const char* from, const char* to) {
  static int (*real)(const char*, const char*);
  if (!real) real = dlsym(RTLD_NEXT, "rename");
  struct stat now;
  int is_safe = stat(from, &now) != 0;
  for (int i = 0; i < KEPT && !is_safe; ++i) is_safe = is_same(&synced[i], &now);
  if (!is_safe && truncate(from, 0) != 0) note("kept", from);
  note("rename", to);
  return real(from, to);
}
