/*
 * passwd(5) and group(5), read by hand: libc's functions would load modules, which a
 * static program has not. Runs only in a forked child: these are an image's files.
 */
#define _GNU_SOURCE
#include "accounts.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_FILE_BYTES (16 * 1024 * 1024)
#define FIELD_COUNT 7

/* One line, cut at its colons; missing fields are empty. */
struct line {
    char *text;
    size_t size;
    char *fields[FIELD_COUNT];
};

/* NULL if it is no plain file of a sensible size: then nobody is in it. */
static FILE *open_table(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    struct stat status;
    FILE *table;

    if (fd < 0)
        return NULL;
    if (fstat(fd, &status) < 0 || !S_ISREG(status.st_mode) || status.st_size > MAX_FILE_BYTES) {
        close(fd);
        return NULL;
    }
    table = fdopen(fd, "r");
    if (table == NULL)
        close(fd);
    return table;
}

static bool next_line(FILE *table, struct line *line)
{
    static char empty[] = "";
    char *rest;

    if (getline(&line->text, &line->size, table) < 0)
        return false;
    line->text[strcspn(line->text, "\n")] = '\0';
    rest = line->text;
    for (int i = 0; i < FIELD_COUNT; i++) {
        char *field = strsep(&rest, ":");

        line->fields[i] = field != NULL ? field : empty;
    }
    return true;
}

/* Decimal digits alone; the highest number means "unchanged" to the kernel. */
static bool read_id(const char *text, uint32_t *id)
{
    uint64_t number = 0;

    if (*text == '\0')
        return false;
    for (; *text != '\0'; text++) {
        if (*text < '0' || *text > '9')
            return false;
        number = number * 10 + (uint64_t)(*text - '0');
        if (number >= UINT32_MAX)
            return false;
    }
    *id = (uint32_t)number;
    return true;
}

static bool add_group(struct account *account, gid_t group)
{
    for (size_t i = 0; i < account->group_count; i++)
        if (account->groups[i] == group)
            return true;
    if (account->group_count == MAX_ACCOUNT_GROUPS)
        return false;
    account->groups[account->group_count++] = group;
    return true;
}

/* A name wins over a number, as with every tool that takes both. `name` is the user's, if a file knows it. */
static bool find_user(const char *wanted, const char *path, struct account *account, char *name, size_t size)
{
    uint32_t number = 0, uid, gid;
    bool is_number = read_id(wanted, &number), by_name = false, found = false;
    struct line line = {0};
    FILE *table = open_table(path);

    account->uid = number;
    account->gid = 0;
    name[0] = '\0';
    (void)snprintf(account->home, sizeof account->home, "/");
    while (table != NULL && !by_name && next_line(table, &line)) {
        if (!read_id(line.fields[2], &uid) || !read_id(line.fields[3], &gid))
            continue;
        by_name = strcmp(line.fields[0], wanted) == 0;
        if (!by_name && (found || !is_number || uid != number))
            continue;
        found = true;
        account->uid = uid;
        account->gid = gid;
        (void)snprintf(name, size, "%s", line.fields[0]);
        if (line.fields[5][0] == '/')
            (void)snprintf(account->home, sizeof account->home, "%s", line.fields[5]);
    }
    free(line.text);
    if (table != NULL)
        fclose(table);
    return found || is_number;
}

static bool find_group(const char *wanted, const char *path, gid_t *group)
{
    uint32_t gid;
    bool found = false;
    struct line line = {0};
    FILE *table = open_table(path);

    while (table != NULL && !found && next_line(table, &line)) {
        found = strcmp(line.fields[0], wanted) == 0 && read_id(line.fields[2], &gid);
        if (found)
            *group = gid;
    }
    free(line.text);
    if (table != NULL)
        fclose(table);
    if (!found && read_id(wanted, &gid)) {
        *group = gid;
        found = true;
    }
    return found;
}

static bool lists(char *members, const char *name)
{
    for (char *member = strsep(&members, ","); member != NULL; member = strsep(&members, ","))
        if (strcmp(member, name) == 0)
            return true;
    return false;
}

/* The groups that list the user; more than there is room for is an error, not a choice. */
static bool add_memberships(struct account *account, const char *name, const char *path)
{
    struct line line = {0};
    FILE *table = open_table(path);
    uint32_t gid;
    bool fits = true;

    while (table != NULL && fits && next_line(table, &line))
        if (name[0] != '\0' && read_id(line.fields[2], &gid) && lists(line.fields[3], name))
            fits = add_group(account, gid);
    free(line.text);
    if (table != NULL)
        fclose(table);
    return fits;
}

bool find_account(const char *wanted, const char *passwd_path, const char *group_path,
                  struct account *account, char *error, size_t error_size)
{
    char user[256], name[256];
    const char *colon = strchrnul(wanted, ':');

    account->group_count = 0;
    if ((size_t)(colon - wanted) >= sizeof user || colon == wanted) {
        (void)snprintf(error, error_size, "the user '%.64s' has no sensible name", wanted);
        return false;
    }
    memcpy(user, wanted, (size_t)(colon - wanted));
    user[colon - wanted] = '\0';
    if (!find_user(user, passwd_path, account, name, sizeof name)) {
        (void)snprintf(error, error_size, "there is no user '%s' in the image's /etc/passwd", user);
        return false;
    }
    if (*colon == ':') {
        if (find_group(colon + 1, group_path, &account->gid))
            return true;
        (void)snprintf(error, error_size, "there is no group '%.200s' in the image's /etc/group", colon + 1);
        return false;
    }
    if (add_memberships(account, name, group_path))
        return true;
    (void)snprintf(error, error_size, "the user '%s' is in more than %d groups", user, MAX_ACCOUNT_GROUPS);
    return false;
}
