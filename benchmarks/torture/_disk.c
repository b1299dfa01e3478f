/* Stands between a program and the disk (LD_PRELOAD): counts the calls that change files below one folder, and at the
   one that is asked for kills the process, or says from then on that the disk is full or the folder read-only; or
   writes down every call with its data, from which the state of a disk after a power loss can be worked out. It can
   also let the time of day jump.

   Built and driven by _disk.py. Disarmed it changes nothing. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { OFF, KILL, FULL, LOG, COUNT };
enum { WRITE = 'w', TRUNCATE = 't', CREATE = 'c', RENAME = 'r', LINK = 'l', UNLINK = 'u', MKDIR = 'm', RMDIR = 'd', SYNC = 's' };

static int mode = OFF, log_fd = -1, fail_errno = ENOSPC, only_once = 0;
static long at = 0, count = 0;
static char prefix[PATH_MAX];
static size_t prefix_length;
static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;

void torture_arm(const char *folder, int how, long when, int log, int code, int once) {
    strncpy(prefix, folder, sizeof prefix - 1);
    prefix_length = strlen(prefix);
    at = when; count = 0; log_fd = log; fail_errno = code; only_once = once;
    mode = how;
}
long torture_count(void) { return count; }

#define REAL(name) ((__typeof__(&name))real(#name))
static void *real(const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    return found;
}

static int below(const char *path) {
    return mode != OFF && !strncmp(path, prefix, prefix_length) && (path[prefix_length] == '/' || !path[prefix_length]);
}

static int path_of(int fd, char *out) {
    char name[64];
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    ssize_t size = syscall(SYS_readlinkat, AT_FDCWD, name, out, PATH_MAX - 1);
    if (size < 0) return 0;
    out[size] = 0;
    return 1;
}

static void absolute(int folder, const char *path, char *out) {
    if (path[0] == '/') { snprintf(out, PATH_MAX, "%s", path); return; }
    char base[PATH_MAX];
    if (folder == AT_FDCWD) { if (!getcwd(base, sizeof base)) base[0] = 0; }
    else if (!path_of(folder, base)) base[0] = 0;
    size_t a = strlen(base), b = strlen(path);
    if (a + b + 2 > PATH_MAX) { out[0] = 0; return; }
    memcpy(out, base, a); out[a] = '/'; memcpy(out + a + 1, path, b + 1);
}

static void put(const void *data, size_t size) {
    while (size) {
        ssize_t done = syscall(SYS_write, log_fd, data, size);
        if (done <= 0) return;
        data = (const char *)data + done; size -= (size_t)done;
    }
}

static void note(char op, const char *one, const char *two, int64_t offset, const void *data, uint32_t size) {
    uint16_t a = (uint16_t)strlen(one), b = two ? (uint16_t)strlen(two) : 0;
    pthread_mutex_lock(&guard);
    put(&op, 1); put(&a, 2); put(&b, 2); put(&offset, 8); put(&size, 4);
    put(one, a); if (b) put(two, b); if (size) put(data, size);
    pthread_mutex_unlock(&guard);
}

/* Before a change: 0 go on; -1 it fails; 1 do half of it and die. `grows` tells what a full disk would refuse. */
static int before(int grows) {
    if (mode == LOG) return 0;
    long now = __atomic_add_fetch(&count, 1, __ATOMIC_SEQ_CST);
    if (mode == KILL && now == at) return 1;
    if (mode == FULL && grows && at && (only_once ? now == at : now >= at)) { errno = fail_errno; return -1; }
    return 0;
}
static void die(void) { syscall(SYS_kill, getpid(), SIGKILL); for (;;) pause(); }

ssize_t write(int fd, const void *data, size_t size) {
    char path[PATH_MAX];
    if (mode == OFF || fd < 3 || !path_of(fd, path) || !below(path)) return REAL(write)(fd, data, size);
    int what = before(1);
    if (what < 0) return -1;
    if (what) { syscall(SYS_write, fd, data, size / 2); die(); }
    int64_t offset = 0;
    if (mode == LOG) {
        struct stat found;
        offset = (fcntl(fd, F_GETFL) & O_APPEND) && !fstat(fd, &found) ? found.st_size : lseek(fd, 0, SEEK_CUR);
    }
    ssize_t done = REAL(write)(fd, data, size);
    if (mode == LOG && done > 0) note(WRITE, path, 0, offset, data, (uint32_t)done);
    return done;
}

ssize_t writev(int fd, const struct iovec *parts, int many) {
    if (mode == OFF || fd < 3) return REAL(writev)(fd, parts, many);
    ssize_t sum = 0;
    for (int i = 0; i < many; i++) {
        ssize_t done = write(fd, parts[i].iov_base, parts[i].iov_len);
        if (done < 0) return sum ? sum : -1;
        sum += done;
        if ((size_t)done < parts[i].iov_len) break;
    }
    return sum;
}

static ssize_t at_offset(int fd, const void *data, size_t size, off_t offset) {
    char path[PATH_MAX];
    int mine = mode != OFF && path_of(fd, path) && below(path);
    if (mine) {
        int what = before(1);
        if (what < 0) return -1;
        if (what) { syscall(SYS_pwrite64, fd, data, size / 2, offset); die(); }
    }
    ssize_t done = syscall(SYS_pwrite64, fd, data, size, offset);
    if (mine && mode == LOG && done > 0) note(WRITE, path, 0, offset, data, (uint32_t)done);
    return done;
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) { return at_offset(fd, data, size, offset); }
ssize_t pwrite64(int fd, const void *data, size_t size, off_t offset) { return at_offset(fd, data, size, offset); }

static int opened(int folder, const char *name, int flags, mode_t rights) {
    char path[PATH_MAX];
    int changes = mode != OFF && (flags & (O_CREAT | O_TRUNC)) && (absolute(folder, name, path), below(path));
    int isnew = 0, cuts = 0;
    if (changes) {
        struct stat found;
        int missing = syscall(SYS_newfstatat, AT_FDCWD, path, &found, 0) != 0;
        isnew = missing && (flags & O_CREAT);
        cuts = !missing && (flags & O_TRUNC) && found.st_size > 0;
        if (isnew || cuts) {
            int what = before(isnew);
            if (what < 0) return -1;
            if (what) die();
        }
    }
    int fd = (int)syscall(SYS_openat, folder, name, flags, rights);
    if (fd >= 0 && mode == LOG && (isnew || cuts)) note(isnew ? CREATE : TRUNCATE, path, 0, 0, 0, 0);
    return fd;
}
#define RIGHTS(flags) \
    mode_t rights = 0; \
    if ((flags) & O_CREAT) { va_list rest; va_start(rest, flags); rights = va_arg(rest, mode_t); va_end(rest); }
int open(const char *path, int flags, ...) { RIGHTS(flags) return opened(AT_FDCWD, path, flags, rights); }
int open64(const char *path, int flags, ...) { RIGHTS(flags) return opened(AT_FDCWD, path, flags, rights); }
int openat(int fd, const char *path, int flags, ...) { RIGHTS(flags) return opened(fd, path, flags, rights); }
int openat64(int fd, const char *path, int flags, ...) { RIGHTS(flags) return opened(fd, path, flags, rights); }

#define CHANGE(grows, op, one, two, offset, call) \
    int what = before(grows); \
    if (what < 0) return -1; \
    if (what) die(); \
    int done = (int)(call); \
    if (!done && mode == LOG) note(op, one, two, offset, 0, 0); \
    return done;

static int cut(int fd, off_t size) {
    char path[PATH_MAX];
    if (mode == OFF || !path_of(fd, path) || !below(path)) return (int)syscall(SYS_ftruncate, fd, size);
    CHANGE(0, TRUNCATE, path, 0, size, syscall(SYS_ftruncate, fd, size))
}
int ftruncate(int fd, off_t size) { return cut(fd, size); }
int ftruncate64(int fd, off_t size) { return cut(fd, size); }

static int moved(int a, const char *from, int b, const char *to) {
    char one[PATH_MAX], two[PATH_MAX];
    absolute(a, from, one); absolute(b, to, two);
    if (!below(one) && !below(two)) return (int)syscall(SYS_renameat, a, from, b, to);
    CHANGE(1, RENAME, one, two, 0, syscall(SYS_renameat, a, from, b, to))
}
int rename(const char *from, const char *to) { return moved(AT_FDCWD, from, AT_FDCWD, to); }
int renameat(int a, const char *from, int b, const char *to) { return moved(a, from, b, to); }

int renameat2(int a, const char *from, int b, const char *to, unsigned int flags) {
    char one[PATH_MAX], two[PATH_MAX];
    absolute(a, from, one); absolute(b, to, two);
    if (!below(one) && !below(two)) return (int)syscall(SYS_renameat2, a, from, b, to, flags);
    CHANGE(1, RENAME, one, two, 0, syscall(SYS_renameat2, a, from, b, to, flags))
}

static int linked(int a, const char *from, int b, const char *to, int flags) {
    char one[PATH_MAX], two[PATH_MAX];
    absolute(a, from, one); absolute(b, to, two);
    if (!below(two)) return (int)syscall(SYS_linkat, a, from, b, to, flags);
    CHANGE(1, LINK, one, two, 0, syscall(SYS_linkat, a, from, b, to, flags))
}
int link(const char *from, const char *to) { return linked(AT_FDCWD, from, AT_FDCWD, to, 0); }
int linkat(int a, const char *from, int b, const char *to, int flags) { return linked(a, from, b, to, flags); }

int unlinkat(int fd, const char *name, int flags) {
    char path[PATH_MAX];
    absolute(fd, name, path);
    if (!below(path)) return (int)syscall(SYS_unlinkat, fd, name, flags);
    CHANGE(0, (flags & AT_REMOVEDIR) ? RMDIR : UNLINK, path, 0, 0, syscall(SYS_unlinkat, fd, name, flags))
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }

int mkdirat(int fd, const char *name, mode_t rights) {
    char path[PATH_MAX];
    absolute(fd, name, path);
    struct stat found;
    if (!below(path) || !syscall(SYS_newfstatat, fd, name, &found, 0)) return (int)syscall(SYS_mkdirat, fd, name, rights);
    CHANGE(1, MKDIR, path, 0, 0, syscall(SYS_mkdirat, fd, name, rights))
}
int mkdir(const char *path, mode_t rights) { return mkdirat(AT_FDCWD, path, rights); }

int fsync(int fd) {
    char path[PATH_MAX];
    if (mode == OFF || !path_of(fd, path) || !below(path)) return (int)syscall(SYS_fsync, fd);
    CHANGE(1, SYNC, path, 0, 0, mode == LOG ? 0 : syscall(SYS_fsync, fd))
}
/* The time of day jumps by up to six hours at every 50th look at it; the monotonic clock does not. */
static unsigned int clock_seed = 0;
static long clock_looks = 0, clock_moved = 0;
void torture_clock(unsigned int seed) { clock_seed = seed; }

static long moved_by(void) {
    if (!clock_seed) return 0;
    if (__atomic_add_fetch(&clock_looks, 1, __ATOMIC_SEQ_CST) % 50 == 1) {
        clock_seed = clock_seed * 1103515245u + 12345u;
        if (!clock_seed) clock_seed = 1;
        clock_moved = (long)(clock_seed >> 8) % 43200 - 21600;
    }
    return clock_moved;
}
int clock_gettime(clockid_t which, struct timespec *out) {
    int done = (int)syscall(SYS_clock_gettime, which, out);
    if (!done && (which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE)) out->tv_sec += moved_by();
    return done;
}
int gettimeofday(struct timeval *restrict out, void *restrict zone) {
    struct timespec now;
    (void)zone;
    int done = clock_gettime(CLOCK_REALTIME, &now);
    if (!done) { out->tv_sec = now.tv_sec; out->tv_usec = now.tv_nsec / 1000; }
    return done;
}
time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}

int fdatasync(int fd) { return fsync(fd); }
