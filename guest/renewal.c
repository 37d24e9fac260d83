/* See renewal.h. Seed and clock wait for nothing but the kernel, and are the first things a fork is asked
 * for. */
#define _GNU_SOURCE
#include "renewal.h"

#include "files.h"
#include "filesystems.h"
#include "names.h"
#include "processes.h"
#include "session.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define MIN_SEED_BYTES 32
#define MAX_SEED_BYTES 512
#define MACHINE_ID_LENGTH 32
#define NANOSECONDS 1000000000U

bool is_guest;

static uint8_t token[MAX_TOKEN_BYTES];
static size_t token_length;

static bool refuse_outside(uint32_t id)
{
    if (!is_guest)
        refuse(id, EOPNOTSUPP, "this is no guest of its own");
    return !is_guest;
}

/* Crediting the bytes is not enough: until the kernel reseeds by itself it gives what the template would have
 * got. */
void seed_random(uint32_t id, const struct fields *request)
{
    struct field seed;
    struct {
        struct rand_pool_info info;
        uint8_t bytes[MAX_SEED_BYTES];
    } pool;
    int fd;

    if (!find_field(request, TAG_SEED, &seed) || seed.length < MIN_SEED_BYTES ||
        seed.length > MAX_SEED_BYTES) {
        refuse(id, EINVAL, "a seed has %d to %d bytes", MIN_SEED_BYTES, MAX_SEED_BYTES);
        return;
    }
    if (refuse_outside(id))
        return;
    pool.info.entropy_count = (int)seed.length * 8;
    pool.info.buf_size = (int)seed.length;
    memcpy(pool.info.buf, seed.value, seed.length);
    fd = open("/dev/urandom", O_RDWR | O_CLOEXEC);
    if (fd < 0 || ioctl(fd, RNDADDENTROPY, &pool) < 0 || ioctl(fd, RNDRESEEDCRNG) < 0)
        refuse(id, errno, "seed the random number generator");
    else
        reply_nothing(id);
    explicit_bzero(&pool, sizeof pool);
    if (fd >= 0)
        close(fd);
}

/* The real-time clock alone: for programs, monotonic time goes on where it stopped. */
void set_clock(uint32_t id, const struct fields *request)
{
    uint64_t time = 0;
    struct timespec now;

    if (!read_u64(request, TAG_TIME, &time) || time == 0) {
        refuse(id, EINVAL, "no time");
        return;
    }
    if (refuse_outside(id))
        return;
    now = (struct timespec){.tv_sec = (time_t)(time / NANOSECONDS), .tv_nsec = (long)(time % NANOSECONDS)};
    if (clock_settime(CLOCK_REALTIME, &now) < 0)
        refuse(id, errno, "set the clock");
    else
        reply_nothing(id);
}

static bool is_machine_id(const char *text)
{
    return strlen(text) == MACHINE_ID_LENGTH && strspn(text, "0123456789abcdef") == MACHINE_ID_LENGTH;
}

static bool write_line(const char *path, const char *text, mode_t mode)
{
    char line[300];
    int length = snprintf(line, sizeof line, "%s\n", text);

    return replace_file(path, line, (size_t)length, mode);
}

/* An image without /etc gets one. What has failed, with errno; NULL: nothing has. */
static const char *write_identity(const struct fields *request)
{
    char *hostname = read_text_field(request, TAG_HOSTNAME);
    char *machine_id = read_text_field(request, TAG_MACHINE_ID);
    const char *failed = NULL;

    if (hostname != NULL && sethostname(hostname, strlen(hostname)) < 0)
        failed = "set the host name";
    else if (!make_directories("/etc", 0755))
        failed = "mkdir /etc";
    else if (hostname != NULL && !write_line("/etc/hostname", hostname, 0644))
        failed = "write /etc/hostname";
    else if (machine_id != NULL && !write_line("/etc/machine-id", machine_id, 0444))
        failed = "write /etc/machine-id";
    free(hostname);
    free(machine_id);
    if (failed != NULL || !has_field(request, TAG_HOST))
        return failed;
    failed = write_resolver(request);
    return failed != NULL ? failed : write_hosts(request);
}

static void write_identity_apart(const struct fields *request, struct work_files *files)
{
    const char *failed = write_identity(request);

    if (failed != NULL)
        work_fail(files, "%s", failed);
    work_reply(files, NULL);
}

/*
 * The files may lie on a disk that lets wait. Once they have been written, and while no program was there to put
 * something else in their place, they are in memory: then it is done here, because to make a helper and to see it go
 * takes a fork under emulation longer than all else of this.
 */
static void begin_identity(uint32_t id, const struct fields *request)
{
    static bool were_written;
    const char *failed;

    if (!were_written || any_process() || filesystems_are_frozen()) {
        were_written = start_work(id, request, write_identity_apart, WORK_ALONE) > 0;
        return;
    }
    failed = write_identity(request);
    if (failed != NULL)
        refuse(id, errno, "%s", failed);
    else
        reply_nothing(id);
}

void set_identity(uint32_t id, const struct fields *request)
{
    struct field field;
    char *text;
    bool good = true;

    if (find_field(request, TAG_HOSTNAME, &field))
        good = field.length > 0 && field.length <= 64 && memchr(field.value, '\0', field.length) == NULL;
    if (good && has_field(request, TAG_MACHINE_ID)) {
        text = read_text_field(request, TAG_MACHINE_ID);
        good = text != NULL && is_machine_id(text);
        free(text);
    }
    if (good && find_field(request, TAG_TOKEN, &field)) {
        good = field.length <= MAX_TOKEN_BYTES;
        if (good) {
            memcpy(token, field.value, field.length);
            token_length = field.length;
        }
    }
    if (!good)
        refuse(id, EINVAL, "a host name, machine id or token of the wrong form");
    else if (has_field(request, TAG_HOSTNAME) || has_field(request, TAG_MACHINE_ID) ||
             has_field(request, TAG_HOST))
        begin_identity(id, request);
    else
        reply_nothing(id);
}

const uint8_t *identity_token(size_t *length)
{
    *length = token_length;
    return token;
}
