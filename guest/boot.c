/*
 * See boot.h. A step that fails is told on the console and by the agent; PID 1 must
 * not end, and a guest that can say what it lacks is worth more than a panic.
 */
#define _GNU_SOURCE
#include "boot.h"

#include "devices.h"
#include "filesystems.h"
#include "workers.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MODULE_FOLDER "/lib/roost"

static char failure[512];
/* Of the initramfs, which no path leads to once the image is the root. */
static int module_folder = -1;

const char *boot_failure(void)
{
    return failure[0] != '\0' ? failure : NULL;
}

void log_line(const char *format, ...)
{
    char line[512] = "roost-init: ";
    size_t length = strlen(line);
    va_list arguments;
    int fd = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);

    va_start(arguments, format);
    (void)vsnprintf(line + length, sizeof line - length - 1, format, arguments);
    va_end(arguments);
    length = strlen(line);
    line[length++] = '\n';
    /* One write is one record; stdio seeks first, which this device refuses. */
    if (fd >= 0) {
        (void)!write(fd, line, length);
        close(fd);
    } else
        (void)!write(STDERR_FILENO, line, length);
}

/* The first failure is the one that counts: others follow from it. */
__attribute__((format(printf, 1, 2))) static void failed(const char *format, ...)
{
    int error = errno;
    char what[400];
    va_list arguments;

    va_start(arguments, format);
    (void)vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    log_line("%s: %s", what, strerror(error));
    if (failure[0] == '\0')
        (void)snprintf(failure, sizeof failure, "%s: %s", what, strerror(error));
}

static bool mount_at(const char *source, const char *target, const char *type, unsigned long flags,
                     const char *options)
{
    if ((mkdir(target, 0755) == 0 || errno == EEXIST) && mount(source, target, type, flags, options) == 0)
        return true;
    failed("mount %s at %s", source, target);
    return false;
}

/* Gives an open file its number for life. */
static int keep_at(int fd, int number)
{
    int kept = fd >= 0 ? dup3(fd, number, O_CLOEXEC) : -1;

    if (fd >= 0)
        close(fd);
    return kept;
}

static void load_module(const char *name)
{
    int fd = openat(module_folder, name, O_RDONLY | O_CLOEXEC);

    if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST))
        /* A machine without a device may well refuse its driver: what is missing shows later. */
        log_line("load %s: %s", name, strerror(errno));
    if (fd >= 0)
        close(fd);
}

/* Each line has the word that wants a module, and its file; in an order in which each finds what it needs. */
void load_modules_for(const char *word)
{
    int fd = openat(module_folder, "modules", O_RDONLY | O_CLOEXEC);
    FILE *list = fd >= 0 ? fdopen(fd, "r") : NULL;
    char line[256], *rest;

    if (list == NULL) {
        log_line("the list of modules: %s", strerror(errno));
        return;
    }
    while (fgets(line, sizeof line, list) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        rest = strchr(line, ' ');
        if (rest == NULL)
            continue;
        *rest = '\0';
        if (strcmp(line, word) == 0)
            load_module(rest + 1);
    }
    fclose(list);
}

void prepare_kernel(void)
{
    umask(0);
    /* The kernel may have mounted it already, where it was told to. */
    if (mkdir("/dev", 0755) < 0 && errno != EEXIST)
        failed("mkdir /dev");
    if (mount("devtmpfs", "/dev", "devtmpfs", MS_NOSUID, "mode=0755") < 0 && errno != EBUSY)
        failed("mount /dev");
    (void)mount_at("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    (void)mount_at("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    watch_devices();
    module_folder = keep_at(open(MODULE_FOLDER, O_RDONLY | O_DIRECTORY | O_CLOEXEC), MODULES_FD);
    load_modules_for("always");
    umask(022);
}

static bool mount_lower(const struct settings *settings)
{
    char disk[300];

    if (settings->root[0] == '\0') {
        errno = EINVAL;
        failed("roost.root is not given");
        return false;
    }
    if (!find_disk(settings->root, disk, sizeof disk)) {
        errno = ENODEV;
        failed("the image's disk %s", settings->root);
        return false;
    }
    load_modules_for(settings->root_type);
    return mount_at(disk, "/lower", settings->root_type, MS_RDONLY, NULL);
}

static bool mount_upper(const struct settings *settings)
{
    char disk[300];
    const char *options = settings->upper_options[0] != '\0' ? settings->upper_options : NULL;

    if (strcmp(settings->upper, "tmpfs") == 0)
        return mount_at("tmpfs", "/upper", "tmpfs", 0, options != NULL ? options : "mode=0755");
    if (!find_disk(settings->upper, disk, sizeof disk)) {
        errno = ENODEV;
        failed("the disk to write to, %s", settings->upper);
        return false;
    }
    load_modules_for(settings->upper_type);
    return mount_at(disk, "/upper", settings->upper_type, 0, options);
}

/* The top directory of an overlay is the upper one's: it takes over what the image's has. */
static bool make_upper_directories(void)
{
    struct stat status;

    if ((mkdir("/upper/work", 0700) < 0 && errno != EEXIST) ||
        (mkdir("/upper/root", 0755) < 0 && errno != EEXIST) || stat("/lower", &status) < 0 ||
        chown("/upper/root", status.st_uid, status.st_gid) < 0 ||
        chmod("/upper/root", status.st_mode & 07777) < 0) {
        failed("prepare the upper directory");
        return false;
    }
    return true;
}

/* The kernel's file systems as a program of a Linux system expects them. */
static void mount_system(void)
{
    static const struct {
        const char *source, *target, *type, *options;
        unsigned long flags;
    } mounts[] = {
        {"devpts", "/root/dev/pts", "devpts", "mode=0620,ptmxmode=0666", MS_NOSUID | MS_NOEXEC},
        {"shm", "/root/dev/shm", "tmpfs", "mode=1777", MS_NOSUID | MS_NODEV},
        {"mqueue", "/root/dev/mqueue", "mqueue", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC},
        {"tmpfs", "/root/run", "tmpfs", "mode=0755", MS_NOSUID | MS_NODEV},
        {"cgroup2", "/root/sys/fs/cgroup", "cgroup2", "nsdelegate", MS_NOSUID | MS_NODEV | MS_NOEXEC},
    };
    static const struct {
        const char *target, *path;
    } links[] = {
        {"/proc/self/fd", "/root/dev/fd"},
        {"/proc/self/fd/0", "/root/dev/stdin"},
        {"/proc/self/fd/1", "/root/dev/stdout"},
        {"/proc/self/fd/2", "/root/dev/stderr"},
    };

    /* A kernel without one of them still runs most programs. */
    for (size_t i = 0; i < sizeof mounts / sizeof *mounts; i++)
        if ((mkdir(mounts[i].target, 0755) < 0 && errno != EEXIST) ||
            mount(mounts[i].source, mounts[i].target, mounts[i].type, mounts[i].flags, mounts[i].options) < 0)
            log_line("mount %s: %s", mounts[i].target, strerror(errno));
    for (size_t i = 0; i < sizeof links / sizeof *links; i++)
        if (symlink(links[i].target, links[i].path) < 0 && errno != EEXIST)
            log_line("symlink %s: %s", links[i].path, strerror(errno));
}

static bool move_mounts(void)
{
    static const char *const moved[] = {"/proc", "/sys", "/dev"};

    for (size_t i = 0; i < sizeof moved / sizeof *moved; i++) {
        char target[32];

        (void)snprintf(target, sizeof target, "/root%s", moved[i]);
        if ((mkdir(target, 0755) < 0 && errno != EEXIST) ||
            mount(moved[i], target, NULL, MS_MOVE, NULL) < 0) {
            failed("move %s", moved[i]);
            return false;
        }
    }
    return true;
}

void enter_root(const struct settings *settings)
{
    int upper;

    if (!mount_lower(settings) || !mount_upper(settings) || !make_upper_directories())
        return;
    upper = keep_at(open("/upper", O_RDONLY | O_DIRECTORY | O_CLOEXEC), UPPER_FD);
    if (!mount_at("overlay", "/root", "overlay", 0,
                  "lowerdir=/lower,upperdir=/upper/root,workdir=/upper/work"))
        return;
    if (!move_mounts())
        return;
    mount_system();
    /* The old root stays below, with nothing that leads to it but the descriptor of the upper directory. */
    if (chdir("/root") < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 || chdir("/") < 0)
        failed("enter the image's root");
    if (mkdir("/tmp", 01777) == 0)
        (void)chmod("/tmp", 01777);
    keep_upper(upper);
}
