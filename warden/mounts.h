/* What a root file system is mounted of; each fails with the reason. */
#ifndef ROOST_WARDEN_MOUNTS_H
#define ROOST_WARDEN_MOUNTS_H

#include <stdint.h>
#include <sys/types.h>

/* A mount namespace that nobody else is in; what the host unmounts is unmounted there as well. */
void make_namespace(void);

/* Puts a tmpfs over a directory; `limits` are its options. */
void cover(const char *directory, const char *limits);

/* A squashfs, or a directory with what is on its file system, as a mount that is nowhere yet. A loop device goes with it. */
int mount_image(const char *image);
int copy_mount(const char *directory);

/* A user namespace in which ids 0 to `count` - 1 are `first` and so on of the host. */
int open_range(uid_t first, uid_t count);

/* Puts a mount at a place, and closes it; `range` is -1 where the ids stay as they are. `what` is what it is of. */
void place(int tree, int range, uint64_t attributes, const char *what, const char *where);

/* A file system is reached with these ids from now on, and with all capabilities. */
void act_as(uid_t id);

#endif
