/* Children: each is killed when the warden ends, however that does. */
#ifndef ROOST_WARDEN_SPAWN_H
#define ROOST_WARDEN_SPAWN_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define MOST_FILES 6

/* What a child has: descriptor 0 reads as empty, and 1, 2 and so on are these. None of them has a number below
 * FIRST_FREE_FD but 1 and 2 of the warden itself; -1 is a file that takes everything. */
struct files {
    int of[MOST_FILES - 1];
    size_t count;
    const char *group; /* the file of a control group that it joins; NULL: none */
};

pid_t spawn(char *const *arguments, const struct files *files);

/* One that stands in its group, has its files, and executes nothing before a byte is written to `word`; it ends when that is
 * closed without. */
pid_t spawn_standing_by(char *const *arguments, const struct files *files, int *word);

/* Of a process that is not reaped; 0 where there is none. */
pid_t parent_of(pid_t pid);

/* Whether it is on its way out, which takes an init until the last process of its namespace is gone. */
bool is_exiting(pid_t pid, pid_t its_parent);

/* Kills every child, also those that became ours when their parent ended. */
void kill_children(void);

/* `directory/name`, to be freed. */
char *path_in(const char *directory, const char *name);

#endif
