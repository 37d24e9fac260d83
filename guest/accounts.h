/* Users and groups by number or name, from the image's own files. */
#ifndef ROOST_GUEST_ACCOUNTS_H
#define ROOST_GUEST_ACCOUNTS_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define MAX_ACCOUNT_GROUPS 256

struct account {
    uid_t uid;
    gid_t gid;
    gid_t groups[MAX_ACCOUNT_GROUPS];
    size_t group_count;
    char home[PATH_MAX]; /* "/" for a user that no file knows */
};

/*
 * Finds USER, UID, USER:GROUP and so on, as the OCI image specification has them
 * ("config", User): a number need not be in a file; without a group it is the user's
 * own (0 for an unknown number) and those that list the user. False with what is
 * wrong in `error`.
 */
bool find_account(const char *wanted, const char *passwd_path, const char *group_path,
                  struct account *account, char *error, size_t error_size);

#endif
