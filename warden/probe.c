/*
 * Each is tried by a child, in a mount namespace that ends with it: as the lower of two layers that are only read, which takes
 * of the kernel all that a container's root does.
 */
#define _GNU_SOURCE
#include "probe.h"

#include "mounts.h"
#include "process.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* Any one does. */
#define FIRST_ID 0x40000000
#define ID_COUNT 65536
/* What a loop device is a multiple of. */
#define IMAGE_BYTES 4096

/* A squashfs with an empty directory, as `mksquashfs EMPTY FILE -comp lz4 -noI -no-xattrs -no-exports -nopad` makes it. */
static const unsigned char image[] = {
    0x68, 0x73, 0x71, 0x73, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x05, 0x00, 0x11, 0x00, 0x5b, 0x06, 0x01, 0x00, 0x04, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x9a, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x92, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0x6a, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x8c, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x8c, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0x08, 0x80, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x20, 0x80, 0x01, 0x00, 0xed, 0x01,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x02, 0x00, 0x00, 0x00, 0x03, 0x00, 0x00, 0x00, 0x02, 0x00, 0x00, 0x00, 0x04, 0x80, 0x00, 0x00,
    0x00, 0x00, 0x8c, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
};

static int mount_empty_image(void)
{
    char path[32];
    int file = memfd_create("squashfs", MFD_CLOEXEC);

    if (file < 0 || write(file, image, sizeof image) != (ssize_t)sizeof image || ftruncate(file, IMAGE_BYTES) < 0)
        fail("make a squashfs");
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    return mount_image(path);
}

/* Whatever directory is there can be covered where nobody else sees it. */
static void try_under_overlay(int tree, int range, const char *what)
{
    cover("/sys", "mode=755,size=64k");
    if (chdir("/sys") < 0 || mkdir("lower", 0755) < 0 || mkdir("upper", 0755) < 0 || mkdir("merged", 0755) < 0)
        fail("mkdir");
    place(tree, range, MOUNT_ATTR_RDONLY, what, "lower");
    if (mount("overlay", "merged", "overlay", MS_RDONLY, "lowerdir=upper:lower") < 0)
        fail("mount an overlay of %s with a range of ids", what);
}

/* Whether it does; a NULL is a squashfs. */
static bool takes_ids(const char *directory)
{
    pid_t self = getpid(), child;
    int range, status;

    /* The child would say it again. */
    (void)fflush(stdout);
    child = fork();
    if (child < 0)
        fail("fork");
    if (child == 0) {
        die_with(self);
        range = open_range(FIRST_ID, ID_COUNT);
        make_namespace();
        try_under_overlay(directory == NULL ? mount_empty_image() : copy_mount(directory), range,
                          directory == NULL ? "a squashfs" : directory);
        exit(EXIT_SUCCESS);
    }
    if (waitpid(child, &status, 0) != child)
        fail("waitpid");
    return WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SUCCESS;
}

int probe(char *const *directories)
{
    if (takes_ids(NULL))
        puts("squashfs");
    for (; *directories != NULL; directories++)
        if (takes_ids(*directories))
            puts(*directories);
    return fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_LAUNCH_FAILED;
}
