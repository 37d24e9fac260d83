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

#include "mounts.h"
#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Files of liblxc that belong to all containers of a host. */
#define LIBLXC_RUN "/run/lxc"

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
    upper = options->upper != NULL ? copy_mount(options->upper) : -1;
    cover(options->run, "mode=755,size=64k");
    if (chdir(options->run) < 0)
        fail("chdir %s", options->run);
    if (mkdir("lower", 0755) < 0 || mkdir("up", 0755) < 0 || mkdir("merged", 0755) < 0)
        fail("mkdir in %s", options->run);
    /* Nothing was written, or it is not asked for. */
    if (upper < 0) {
        place(lower, range, MOUNT_ATTR_RDONLY, below, "merged");
        return;
    }
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
