/*
 * liblxc leaves groups behind, and a container can make as many of them below its own as it likes, as deep as it likes. So
 * they are removed by going there, one step down or up at a time: no path becomes too long, nothing is kept for a level but
 * its name.
 */
#define _GNU_SOURCE
#include "groups.h"

#include "process.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Of the name: where liblxc is told to put the container. */
#define PAYLOAD "payload"
/* v1 has a dozen hierarchies, and their names of old are others of the same. */
#define MOST_HIERARCHIES 32
/* How long groups of those who have ended may be in use. */
#define MOST_ROUNDS 200
#define ROUND_MS 5
/* Directories at once. */
#define MOST_OPEN 64

static struct {
    char *directory; /* of the name in this hierarchy */
    bool is_unified, has_freezer;
} hierarchies[MOST_HIERARCHIES];
static size_t hierarchy_count;

static bool has_option(char *options, const char *wanted)
{
    char *rest = options;

    for (char *option = strsep(&rest, ","); option != NULL; option = strsep(&rest, ","))
        if (strcmp(option, wanted) == 0)
            return true;
    return false;
}

/* A line of proc(5)'s mountinfo: the place is its fifth field; type and options are behind the one that is `-`. */
static void read_mount(char *line, const char *name)
{
    char *rest = line, *fields[32];
    size_t count = 0, dash = 6;

    line[strcspn(line, "\n")] = '\0';
    while (count < sizeof fields / sizeof fields[0] && (fields[count] = strsep(&rest, " ")) != NULL)
        count++;
    while (dash < count && strcmp(fields[dash], "-") != 0)
        dash++;
    if (dash + 3 >= count || strncmp(fields[dash + 1], "cgroup", strlen("cgroup")) != 0 ||
        hierarchy_count == MOST_HIERARCHIES)
        return;
    hierarchies[hierarchy_count].is_unified = strcmp(fields[dash + 1], "cgroup2") == 0;
    hierarchies[hierarchy_count].has_freezer = has_option(fields[dash + 3], "freezer");
    if (asprintf(&hierarchies[hierarchy_count].directory, "%s/%s", fields[4], name) < 0)
        fail("asprintf");
    hierarchy_count++;
}

void groups_open(const char *name)
{
    FILE *mounts = fopen("/proc/self/mountinfo", "re");
    char *line = NULL;
    size_t size = 0;

    if (mounts == NULL)
        fail("open /proc/self/mountinfo");
    while (getline(&line, &size, mounts) > 0)
        read_mount(line, name);
    free(line);
    (void)fclose(mounts);
}

/* The directory in the hierarchy that freezes: of v1, where that has it. NULL if none does. */
static const char *freezing_directory(bool *is_unified)
{
    for (int wanted = 0; wanted < 2; wanted++)
        for (size_t i = 0; i < hierarchy_count; i++) {
            *is_unified = hierarchies[i].is_unified;
            if (wanted == 0 ? hierarchies[i].has_freezer : *is_unified)
                return hierarchies[i].directory;
        }
    return NULL;
}

static bool freezer_file(const char *of_v1, const char *of_v2, char *path, size_t size, bool *is_unified)
{
    const char *directory = freezing_directory(is_unified);

    errno = ENOTSUP;
    if (directory == NULL)
        return false;
    (void)snprintf(path, size, "%s/" PAYLOAD "/%s", directory, *is_unified ? of_v2 : of_v1);
    return true;
}

char *groups_make_first(void)
{
    char path[PATH_MAX], *file;
    bool is_unified;
    const char *directory = freezing_directory(&is_unified);

    if (directory == NULL)
        return NULL;
    (void)snprintf(path, sizeof path, "%s/starter", directory);
    if ((mkdir(directory, 0755) < 0 && errno != EEXIST) || (mkdir(path, 0755) < 0 && errno != EEXIST))
        return NULL;
    if (asprintf(&file, "%s/cgroup.procs", path) < 0)
        fail("asprintf");
    return file;
}

bool groups_freeze(bool frozen)
{
    char path[PATH_MAX];
    bool is_unified, is_written;
    const char *text;
    int fd, error;

    if (!freezer_file("freezer.state", "cgroup.freeze", path, sizeof path, &is_unified))
        return false;
    fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    text = is_unified ? (frozen ? "1" : "0") : (frozen ? "FROZEN" : "THAWED");
    is_written = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    error = errno;
    close(fd);
    errno = error;
    return is_written;
}

/* As nftw(3) comes by, in the directory of what it names. */
static int thaw_group(const char *path, const struct stat *status, int type, struct FTW *place)
{
    char file[NAME_MAX + sizeof "/freezer.state"];
    int fd;

    (void)status;
    if (type != FTW_D)
        return 0;
    (void)snprintf(file, sizeof file, "%s/freezer.state", path + place->base);
    fd = open(file, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    (void)!write(fd, "THAWED", strlen("THAWED"));
    close(fd);
    return 0;
}

void groups_thaw_all(void)
{
    for (size_t i = 0; i < hierarchy_count; i++)
        if (hierarchies[i].has_freezer)
            (void)nftw(hierarchies[i].directory, thaw_group, MOST_OPEN, FTW_CHDIR | FTW_PHYS);
    (void)!chdir("/");
}

bool groups_are_frozen(void)
{
    char path[PATH_MAX], text[256];
    bool is_unified;
    ssize_t length;
    int fd;

    if (!freezer_file("freezer.state", "cgroup.events", path, sizeof path, &is_unified))
        return false;
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    length = read(fd, text, sizeof text - 1);
    close(fd);
    text[length > 0 ? length : 0] = '\0';
    return strstr(text, is_unified ? "frozen 1" : "FROZEN") != NULL;
}

struct descent {
    char **names; /* of the levels above this one */
    size_t depth, room;
};

static bool go_down(struct descent *descent, const char *name)
{
    if (descent->depth == descent->room) {
        size_t room = descent->room * 2 + 16;
        char **names = realloc(descent->names, room * sizeof *names);

        if (names == NULL)
            return false;
        descent->names = names;
        descent->room = room;
    }
    if (chdir(name) < 0)
        return false;
    descent->names[descent->depth] = strdup(name);
    return descent->names[descent->depth++] != NULL;
}

static bool go_up(struct descent *descent)
{
    char *name = descent->names[--descent->depth];
    bool is_gone = chdir("..") == 0 && (rmdir(name) == 0 || errno == ENOENT);
    int error = errno;

    free(name);
    errno = error;
    return is_gone;
}

/* Removes what is removed at once; gives the first that is not. False, with errno 0, where there is none. */
static bool find_stubborn(char *name, size_t size)
{
    DIR *here = opendir(".");
    struct dirent *entry;

    if (here == NULL)
        return false;
    for (;;) {
        errno = 0;
        entry = readdir(here);
        if (entry == NULL)
            break;
        if (entry->d_type != DT_DIR || strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (rmdir(entry->d_name) == 0 || errno == ENOENT)
            continue;
        (void)snprintf(name, size, "%s", entry->d_name);
        break;
    }
    int error = errno;
    closedir(here);
    errno = error;
    return entry != NULL;
}

/* What is below the current directory. */
static bool remove_below(void)
{
    struct descent descent = {0};
    char name[NAME_MAX + 1];
    bool is_good = true;

    while (is_good) {
        if (find_stubborn(name, sizeof name))
            is_good = go_down(&descent, name);
        else if (errno != 0)
            is_good = false;
        else if (descent.depth == 0)
            break;
        else
            is_good = go_up(&descent);
    }
    int error = errno;
    while (descent.depth > 0)
        free(descent.names[--descent.depth]);
    free(descent.names);
    errno = error;
    return is_good;
}

static bool remove_in(const char *directory, bool whole)
{
    if (chdir(directory) < 0)
        return errno == ENOENT;
    if (!remove_below())
        return false;
    return !whole || rmdir(directory) == 0 || errno == ENOENT;
}

static int remove_once(bool whole)
{
    int left = 0;

    for (size_t i = 0; i < hierarchy_count; i++)
        if (!remove_in(hierarchies[i].directory, whole))
            left = errno;
    (void)!chdir("/");
    return left;
}

bool groups_remove(bool whole)
{
    int left = remove_once(whole);

    /* A process that has ended is in its groups until the processor has left it, of which nobody is told. */
    for (int rounds = 0; left == EBUSY && rounds < MOST_ROUNDS; rounds++) {
        (void)poll(NULL, 0, ROUND_MS);
        left = remove_once(whole);
    }
    errno = left;
    return left == 0;
}
