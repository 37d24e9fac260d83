/* See mounts.h. */
#define _GNU_SOURCE
#include "mounts.h"

#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/loop.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/fsuid.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

void make_namespace(void)
{
    if (unshare(CLONE_NEWNS) < 0)
        fail("unshare the mounts");
    /* What the host unmounts is unmounted here as well. */
    if (mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0)
        fail("make the mounts depend on the host's");
}

void cover(const char *directory, const char *limits)
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

int mount_image(const char *image)
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

int copy_mount(const char *directory)
{
    int tree = open_tree(AT_FDCWD, directory, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);

    if (tree < 0)
        fail("%s", directory);
    return tree;
}

/* By a child that is in it for a moment. */
int open_range(uid_t first, uid_t count)
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

void place(int tree, int range, uint64_t attributes, const char *what, const char *where)
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

/* That they are not 0 takes capabilities away, which come back. */
void act_as(uid_t id)
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
