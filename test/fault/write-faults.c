/*
 * Lets writes of a process fail, for tests: preloaded by ld.so, and told what to do through a file that the test writes
 * and this maps. Only files whose path has the given word in it are concerned.
 *   ROOST_FAULT_CONTROL=PATH  the file, a struct control
 *   ROOST_FAULT_FILE=WORD     the concerned files have this word in their path
 * What counts as a write: write, pwrite, a change of the length, an allocation, and the wait for the disk.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

struct control {
  /* Concerned writes since the test last set this to 0. */
  _Atomic uint64_t writes;
  /* The first that fails, counted from 1; 0: none does. */
  uint64_t from;
  /* How many fail from there on. */
  uint64_t count;
  /* errno of the failure. */
  uint64_t error;
};

static struct control *control;
static const char *concerned;

__attribute__((constructor)) static void open_control(void) {
  const char *path = getenv("ROOST_FAULT_CONTROL");
  concerned = getenv("ROOST_FAULT_FILE");
  if (path == NULL || concerned == NULL) return;
  int fd = open(path, O_RDWR | O_CLOEXEC);
  if (fd < 0) return;
  void *mapped = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  if (mapped != MAP_FAILED) control = mapped;
}

/* Whether this write is to fail; errno is set then. */
static int fails(int fd) {
  if (control == NULL) return 0;
  char link[64], path[PATH_MAX];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 0) return 0;
  path[length] = '\0';
  if (strstr(path, concerned) == NULL) return 0;
  uint64_t number = atomic_fetch_add(&control->writes, 1) + 1;
  if (control->from == 0 || number < control->from || number - control->from >= control->count) return 0;
  errno = (int)control->error;
  return 1;
}

ssize_t write(int fd, const void *bytes, size_t length) {
  return fails(fd) ? -1 : syscall(SYS_write, fd, bytes, length);
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t offset) {
  return fails(fd) ? -1 : syscall(SYS_pwrite64, fd, bytes, length, offset);
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset) {
  return pwrite64(fd, bytes, length, offset);
}

int ftruncate64(int fd, off64_t length) {
  return fails(fd) ? -1 : (int)syscall(SYS_ftruncate, fd, length);
}

int ftruncate(int fd, off_t length) {
  return ftruncate64(fd, length);
}

int posix_fallocate64(int fd, off64_t offset, off64_t length) {
  if (fails(fd)) return errno;
  return syscall(SYS_fallocate, fd, 0, offset, length) == 0 ? 0 : errno;
}

int posix_fallocate(int fd, off_t offset, off_t length) {
  return posix_fallocate64(fd, offset, length);
}

int fsync(int fd) {
  return fails(fd) ? -1 : (int)syscall(SYS_fsync, fd);
}

int fdatasync(int fd) {
  return fails(fd) ? -1 : (int)syscall(SYS_fdatasync, fd);
}
