/* See filesystems.h. Freezing waits for the disk, so workers do it; when it ends by itself is the agent's. */
#define _GNU_SOURCE
#include "filesystems.h"

#include "boot.h"
#include "devices.h"
#include "files.h"
#include "loop.h"
#include "renewal.h"
#include "session.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define MAX_FROZEN 64
#define DEFAULT_FREEZE_MS 30000
#define LONGEST_FREEZE_MS 600000

static int upper = -1;
static bool frozen;
static struct watch thaw_timer = {.fd = -1};
/* The worker that freezes, while it does; and whether a thaw waits for its end, for whom. */
static pid_t freezer;
static bool thaw_waits;
static uint32_t thaw_request;

void keep_upper(int directory)
{
    upper = directory;
}

bool filesystems_are_frozen(void)
{
    return frozen;
}

/* In mountinfo, blanks and the like are written as octal numbers; see proc(5). */
static void unescape(char *text)
{
    char *to = text;

    for (char *from = text; *from != '\0'; to++) {
        if (from[0] == '\\' && from[1] >= '0' && from[1] <= '3' && from[2] != '\0' && from[3] != '\0') {
            *to = (char)((from[1] - '0') * 64 + (from[2] - '0') * 8 + (from[3] - '0'));
            from += 4;
        } else
            *to = *from++;
    }
    *to = '\0';
}

/* Opens the places of all file systems that lie on disks and can be written to. */
static int open_disks(int *descriptors, int count)
{
    FILE *mounts = fopen("/proc/self/mountinfo", "re");
    char *line = NULL, place[4096], options[256], source[256];
    size_t size = 0;
    int found = 0;

    if (upper >= 0)
        descriptors[found++] = upper;
    while (mounts != NULL && found < count && getline(&line, &size, mounts) > 0) {
        const char *dash = strstr(line, " - ");

        if (dash == NULL || sscanf(line, "%*s %*s %*s %*s %4095s %255s", place, options) != 2 ||
            sscanf(dash, " - %*s %255s", source) != 1)
            continue;
        if (strncmp(source, "/dev/", 5) != 0 || strncmp(options, "rw", 2) != 0)
            continue;
        unescape(place);
        descriptors[found] = open(place, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (descriptors[found] >= 0)
            found++;
    }
    free(line);
    if (mounts != NULL)
        fclose(mounts);
    return found;
}

static void reply_count(struct work_files *files, uint32_t count)
{
    uint8_t bytes[16];
    struct field_writer writer = {.bytes = bytes, .capacity = sizeof bytes};

    put_u32_field(&writer, TAG_COUNT, count);
    work_reply(files, &writer);
}

static void do_sync(const struct fields *request, struct work_files *files)
{
    (void)request;
    sync();
    work_reply(files, NULL);
}

/* All or none. One that is frozen already is somebody else's business, and counted. */
static void do_freeze(const struct fields *request, struct work_files *files)
{
    int disks[MAX_FROZEN], count = open_disks(disks, MAX_FROZEN), done[MAX_FROZEN];
    uint32_t frozen_count = 0;

    (void)request;
    sync();
    for (int i = 0; i < count; i++) {
        done[i] = ioctl(disks[i], FIFREEZE, 0) == 0;
        if (done[i] || errno == EBUSY)
            frozen_count++;
        /* tmpfs and the like have nothing to freeze. */
        else if (errno != EOPNOTSUPP) {
            int error = errno;

            for (int j = 0; j < i; j++)
                if (done[j])
                    (void)ioctl(disks[j], FITHAW, 0);
            errno = error;
            work_fail(files, "freeze file system %d of %d", i + 1, count);
        }
    }
    reply_count(files, frozen_count);
}

static void do_thaw(const struct fields *request, struct work_files *files)
{
    int disks[MAX_FROZEN], count = open_disks(disks, MAX_FROZEN);
    uint32_t thawed = 0;

    (void)request;
    for (int i = 0; i < count; i++)
        if (ioctl(disks[i], FITHAW, 0) == 0)
            thawed++;
    reply_count(files, thawed);
}

static bool refuse_outside(uint32_t id)
{
    if (!is_guest)
        refuse(id, EOPNOTSUPP, "this is no guest of its own");
    return !is_guest;
}

/* Never beside a freeze that is under way, which would go on after it. */
static void thaw(uint32_t id)
{
    struct fields nothing = {(const uint8_t *)"", 0};

    loop_close(&thaw_timer);
    if (freezer > 0) {
        if (thaw_waits && thaw_request != 0)
            refuse(thaw_request, ECANCELED, "another thaw was asked for");
        thaw_waits = true;
        thaw_request = id;
        return;
    }
    thaw_waits = false;
    frozen = false;
    (void)start_work(id, &nothing, do_thaw, WORK_ALONE);
}

void filesystem_work_ended(pid_t pid, bool succeeded)
{
    if (pid != freezer || pid <= 0)
        return;
    freezer = 0;
    /* One that failed, or was given up half way, leaves nothing frozen. */
    if (thaw_waits || !succeeded)
        thaw(thaw_waits ? thaw_request : 0);
}

static void thaw_is_due(struct watch *watch, uint32_t events)
{
    (void)watch;
    (void)events;
    thaw(0);
}

void sync_filesystems(uint32_t id, const struct fields *request)
{
    if (!refuse_outside(id))
        (void)start_work(id, request, do_sync, WORK_ALONE);
}

void freeze_filesystems(uint32_t id, const struct fields *request)
{
    uint32_t timeout = DEFAULT_FREEZE_MS;
    struct itimerspec due = {0};
    int timer;

    if (refuse_outside(id))
        return;
    (void)read_u32(request, TAG_TIMEOUT, &timeout);
    if (timeout == 0 || timeout > LONGEST_FREEZE_MS) {
        refuse(id, EINVAL, "a freeze lasts 1 to %d ms", LONGEST_FREEZE_MS);
        return;
    }
    if (frozen) {
        refuse(id, EBUSY, "the file systems are frozen already");
        return;
    }
    /* The timer before the freeze: a host that goes away leaves no guest frozen. */
    due.it_value.tv_sec = timeout / 1000;
    due.it_value.tv_nsec = (long)(timeout % 1000) * 1000000;
    timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (timer < 0 || timerfd_settime(timer, 0, &due, NULL) < 0 ||
        !loop_add(&thaw_timer, timer, EPOLLIN, thaw_is_due)) {
        refuse(id, errno, "set the time of the thaw");
        return;
    }
    freezer = start_work(id, request, do_freeze, WORK_ALONE);
    frozen = freezer > 0;
    if (!frozen)
        loop_close(&thaw_timer);
}

void thaw_filesystems(uint32_t id, const struct fields *request)
{
    (void)request;
    if (!refuse_outside(id))
        thaw(id);
}

/* A request that comes again must not mount it twice. */
static bool is_overlay(const char *place)
{
    struct statfs filesystem;
    struct statx status;

    return statfs(place, &filesystem) == 0 && filesystem.f_type == OVERLAYFS_SUPER_MAGIC &&
           statx(AT_FDCWD, place, 0, STATX_TYPE, &status) == 0 &&
           (status.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0;
}

/* The directories of an overlay's upper side, `copies/NAME` of the guest's own layer, which no path leads to. The top one
 * takes over what the lower one has, which is the current directory. */
static bool make_upper_of_copy(const char *name)
{
    static const char *const parts[] = {"", "/root", "/work"};
    char path[128];
    struct stat status;

    if ((mkdirat(upper, "copies", 0700) < 0 && errno != EEXIST) || stat(".", &status) < 0)
        return false;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        (void)snprintf(path, sizeof path, "copies/%s%s", name, parts[i]);
        if (mkdirat(upper, path, 0700) == 0) {
            if (strcmp(parts[i], "/root") == 0 && (fchownat(upper, path, status.st_uid, status.st_gid, 0) < 0 ||
                                                   fchmodat(upper, path, status.st_mode & 07777, 0) < 0))
                return false;
        } else if (errno != EEXIST)
            return false;
    }
    return true;
}

/* What the disk holds stays as it is: what is written goes over it. */
static void mount_under_overlay(const char *disk, const char *target, unsigned long flags, const char *name,
                                struct work_files *files)
{
    char options[512];
    int error;

    errno = EINVAL;
    if (upper < 0 || name == NULL || strlen(name) > 64 || name[0] == '.' || name[0] == '\0' ||
        strpbrk(name, "/,:\\") != NULL)
        work_fail(files, "an overlay over %.200s needs a name of its own", disk);
    if (is_overlay(target))
        return;
    load_modules_for("squashfs");
    if (mount(disk, target, "squashfs", flags | MS_RDONLY, NULL) < 0)
        work_fail(files, "mount %.200s at %.200s", disk, target);
    (void)snprintf(options, sizeof options,
                   "lowerdir=.,upperdir=/proc/self/fd/%d/copies/%s/root,workdir=/proc/self/fd/%d/copies/%s/work", upper,
                   name, upper, name);
    if (chdir(target) == 0 && make_upper_of_copy(name) && mount("overlay", target, "overlay", flags, options) == 0)
        return;
    error = errno;
    (void)chdir("/");
    (void)umount2(target, MNT_DETACH);
    errno = error;
    work_fail(files, "mount an overlay at %.200s", target);
}

static void do_mount(const struct fields *request, struct work_files *files)
{
    char disk[300];
    char *source = read_text_field(request, TAG_SOURCE), *target = read_text_field(request, TAG_PATH);
    char *type = read_text_field(request, TAG_FSTYPE), *options = read_text_field(request, TAG_OPTIONS);
    uint32_t flags = 0;
    struct stat status;

    errno = EINVAL;
    if (source == NULL || target == NULL || type == NULL)
        work_fail(files, "a mount needs a source, a place and a type");
    (void)read_u32(request, TAG_MOUNT_FLAGS, &flags);
    if (stat(target, &status) < 0 && !make_directories(target, 0755))
        work_fail(files, "mkdir %.400s", target);
    if (strncmp(source, "serial:", 7) == 0) {
        errno = ENODEV;
        if (!find_disk(source, disk, sizeof disk))
            work_fail(files, "the disk %.200s", source);
        source = disk;
    }
    if (is_guest)
        load_modules_for(type);
    if (source == disk && strcmp(type, "overlay") == 0)
        mount_under_overlay(disk, target, flags, options, files);
    else if (mount(source, target, type, flags, options) < 0)
        work_fail(files, "mount %.200s at %.200s", source, target);
    work_reply(files, NULL);
}

void mount_filesystem(uint32_t id, const struct fields *request)
{
    (void)start_work(id, request, do_mount, WORK_ALONE);
}
