/*
 * An overlay of what is shared and what is the container's, both seen through the container's range of ids (mount_setattr(2)):
 * on disk root is 0, to the kernel it is the first of the range.
 *
 * The run directory is covered by a tmpfs that has the places; the host sees nothing of it, and sockets that lie there stay
 * reachable. Directories are given to the overlay relative to it, so that no path of the host is shown in the container.
 *
 * Whoever mounts an overlay is who writes in it. On layers with a range of ids root is nobody: such an overlay comes up
 * read-only, without an error. So it is mounted as the container's root, with the capabilities of this one.
 */
#define _GNU_SOURCE
#include "root.h"

#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/loop.h>
#include <linux/openat2.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* Files of liblxc that belong to all containers of a host. */
#define LIBLXC_RUN "/run/lxc"

void own_mounts(void)
{
    if (unshare(CLONE_NEWNS) < 0)
        fail("unshare the mounts");
    /* What the host unmounts is unmounted here as well. */
    if (mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0)
        fail("make the mounts depend on the host's");
}

static void cover(const char *directory, const char *limits)
{
    if (mount("tmpfs", directory, "tmpfs", MS_NOSUID | MS_NODEV, limits) < 0)
        fail("mount a tmpfs at %s", directory);
}

static int attach_loop(const char *image)
{
    struct loop_config config = {.info.lo_flags = LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR};
    int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC), file, device, number;
    char path[32];

    if (control < 0)
        fail("open /dev/loop-control");
    file = open(image, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        fail("open %s", image);
    config.fd = (unsigned)file;
    do {
        number = ioctl(control, LOOP_CTL_GET_FREE);
        if (number < 0)
            fail("find a loop device for %s", image);
        (void)snprintf(path, sizeof path, "/dev/loop%d", number);
        device = open(path, O_RDONLY | O_CLOEXEC);
        if (device < 0)
            fail("open %s for %s", path, image);
        if (ioctl(device, LOOP_CONFIGURE, &config) == 0)
            break;
        /* Somebody else was quicker. */
        if (errno != EBUSY)
            fail("make %s of %s", path, image);
        close(device);
    } while (true);
    close(file);
    close(control);
    return device;
}

/* The image as a mount that is nowhere yet; the device goes with it. */
static int mount_image(const char *image)
{
    int device = attach_loop(image), context, tree;
    char path[32];

    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", device);
    context = fsopen("squashfs", FSOPEN_CLOEXEC);
    if (context < 0)
        fail("squashfs");
    if (fsconfig(context, FSCONFIG_SET_STRING, "source", path, 0) < 0 ||
        fsconfig(context, FSCONFIG_SET_FLAG, "ro", NULL, 0) < 0 ||
        fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
        fail("read %s as a squashfs", image);
    tree = fsmount(context, FSMOUNT_CLOEXEC, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NODEV);
    if (tree < 0)
        fail("mount %s", image);
    close(context);
    close(device);
    return tree;
}

static int copy_mount(const char *directory)
{
    int tree = open_tree(AT_FDCWD, directory, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);

    if (tree < 0)
        fail("%s", directory);
    return tree;
}

/* A user namespace that has the range, by a child that is in it for a moment. */
static int open_range(uid_t first, uid_t count)
{
    char path[64], line[64];
    pid_t self = getpid(), child;
    int ready[2], namespace, status;
    char byte;

    if (pipe2(ready, O_CLOEXEC) < 0)
        fail("pipe");
    child = fork();
    if (child < 0)
        fail("fork");
    if (child == 0) {
        die_with(self);
        if (unshare(CLONE_NEWUSER) < 0)
            fail("make a user namespace");
        if (write(ready[1], "", 1) != 1)
            fail("write");
        for (;;)
            (void)pause();
    }
    close(ready[1]);
    /* The child says itself what fails. */
    if (read(ready[0], &byte, 1) != 1)
        exit(EXIT_LAUNCH_FAILED);
    close(ready[0]);
    (void)snprintf(line, sizeof line, "0 %u %u\n", first, count);
    (void)snprintf(path, sizeof path, "/proc/%d/uid_map", (int)child);
    write_text(path, line);
    (void)snprintf(path, sizeof path, "/proc/%d/gid_map", (int)child);
    write_text(path, line);
    (void)snprintf(path, sizeof path, "/proc/%d/ns/user", (int)child);
    namespace = open(path, O_RDONLY | O_CLOEXEC);
    if (namespace < 0)
        fail("open %s", path);
    if (kill(child, SIGKILL) < 0 || waitpid(child, &status, 0) != child)
        fail("end process %d", (int)child);
    return namespace;
}

/* Puts a mount at a place of the run directory; `range` is -1 where the ids stay as they are. */
static void place(int tree, int range, uint64_t attributes, const char *what, const char *where)
{
    struct mount_attr change = {
        .attr_set = attributes | (range >= 0 ? MOUNT_ATTR_IDMAP : 0),
        .propagation = MS_PRIVATE,
        .userns_fd = range >= 0 ? (uint64_t)range : 0,
    };

    if (mount_setattr(tree, "", AT_EMPTY_PATH, &change, sizeof change) < 0) {
        if (errno == EINVAL && range >= 0)
            fail("the file system of %s takes no range of ids (squashfs does from Linux 6.2 on)", what);
        fail("mount_setattr %s", what);
    }
    if (move_mount(tree, "", AT_FDCWD, where, MOVE_MOUNT_F_EMPTY_PATH) < 0)
        fail("mount %s", what);
    close(tree);
}

/* A file system is reached with these ids from now on; that they are not 0 takes capabilities away, which come back. */
static void act_as(uid_t id)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];

    (void)setfsgid(id);
    (void)setfsuid(id);
    if (syscall(SYS_capget, &header, data) < 0)
        fail("capget");
    for (size_t i = 0; i < _LINUX_CAPABILITY_U32S_3; i++)
        data[i].effective = data[i].permitted;
    if (syscall(SYS_capset, &header, data) < 0)
        fail("capset");
}

static void require_directory(const char *path)
{
    struct stat status;

    if (stat(path, &status) < 0)
        fail("%s of --upper", path + strlen("up/"));
    errno = ENOTDIR;
    if (!S_ISDIR(status.st_mode))
        fail("%s of --upper", path + strlen("up/"));
}

static void mount_overlay(const struct options *options)
{
    struct statvfs status;

    act_as(options->first_id);
    if (mount("overlay", "merged", "overlay", MS_NODEV, "lowerdir=lower,upperdir=up/upper,workdir=up/work") < 0)
        fail("mount an overlay of %s on %s", options->upper, options->image ? options->image : options->lower);
    act_as(0);
    if (statvfs("merged", &status) < 0)
        fail("statvfs");
    errno = EROFS;
    if ((status.f_flag & ST_RDONLY) != 0)
        fail("the overlay of %s", options->upper);
}

/* What was written is one more of those that are read: nobody writes, and nobody else has to keep away. */
static void mount_for_reading(const struct options *options)
{
    if (mount("overlay", "merged", "overlay", MS_RDONLY, "lowerdir=up/upper:lower") < 0)
        fail("mount an overlay of %s for reading", options->upper);
}

void mount_root(const struct options *options)
{
    const char *below = options->image != NULL ? options->image : options->lower;
    int range = options->id_count > 0 ? open_range(options->first_id, options->id_count) : -1;
    int lower, upper;

    /* Before the run directory is covered, in which they may lie. */
    lower = options->image != NULL ? mount_image(below) : copy_mount(below);
    upper = copy_mount(options->upper);
    cover(options->run, "mode=755,size=64k");
    if (chdir(options->run) < 0)
        fail("chdir %s", options->run);
    if (mkdir("lower", 0755) < 0 || mkdir("up", 0755) < 0 || mkdir("merged", 0755) < 0)
        fail("mkdir in %s", options->run);
    place(lower, range, MOUNT_ATTR_RDONLY, below, "lower");
    place(upper, range, range >= 0 ? 0 : MOUNT_ATTR_RDONLY, options->upper, "up");
    require_directory("up/upper");
    require_directory("up/work");
    if (range >= 0)
        mount_overlay(options);
    else
        mount_for_reading(options);
    if (range >= 0)
        close(range);
}

/* A program that liblxc would ask for ranges that only its own file knows of. */
static void hide_program(const char *path)
{
    if (access(path, F_OK) == 0 && mount("/dev/null", path, NULL, MS_BIND, NULL) < 0)
        fail("hide %s", path);
}

void hide_from_liblxc(void)
{
    if (mkdir(LIBLXC_RUN, 0755) < 0 && errno != EEXIST)
        fail("mkdir " LIBLXC_RUN);
    cover(LIBLXC_RUN, "mode=755,size=1m");
    hide_program("/usr/bin/newuidmap");
    hide_program("/usr/bin/newgidmap");
}

bool root_has_systemd(void)
{
    struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT};
    char name[64], path[PATH_MAX];
    int root = open("merged", O_PATH | O_DIRECTORY | O_CLOEXEC);
    int init = root < 0 ? -1 : (int)syscall(SYS_openat2, root, "sbin/init", &how, sizeof how);
    ssize_t length = 0;

    if (init >= 0) {
        (void)snprintf(name, sizeof name, "/proc/self/fd/%d", init);
        length = readlink(name, path, sizeof path - 1);
        close(init);
    }
    if (root >= 0)
        close(root);
    path[length > 0 ? length : 0] = '\0';
    return strcmp(strrchr(path, '/') != NULL ? strrchr(path, '/') : path, "/systemd") == 0;
}
