/* The guest's file systems: flushed, frozen, thawed, and further ones mounted. */
#ifndef ROOST_GUEST_FILESYSTEMS_H
#define ROOST_GUEST_FILESYSTEMS_H

#include "workers.h"

void sync_filesystems(uint32_t id, const struct fields *request);
void freeze_filesystems(uint32_t id, const struct fields *request);
void thaw_filesystems(uint32_t id, const struct fields *request);
void mount_filesystem(uint32_t id, const struct fields *request);

bool filesystems_are_frozen(void);

/* A worker has ended, perhaps one of these. */
void filesystem_work_ended(pid_t pid, bool succeeded);

/* The directory under the overlay that is written to; nothing else leads to it any more. -1: there is none.
 */
void keep_upper(int directory);

#endif
