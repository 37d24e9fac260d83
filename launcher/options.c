/*
 * Reads the command line. Strict on purpose: an option has one spelling and one
 * form (`--name VALUE`), numbers are plain decimals, and whatever isn't understood
 * ends the launch, because a guest started with half its restrictions looks well.
 */
#define _GNU_SOURCE
#include "options.h"

#include "process.h"

#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_FREE_FD 3
/* Below those that are used while a directory is prepared. */
#define LAST_NUMBERED_FD 127

static const char usage[] =
    "usage: roost-launcher [OPTION VALUE]... -- PROGRAM [ARGUMENT]...\n"
    "  --uid N --gid N --groups A,B,...   identity to take (all three or none; '' for no groups)\n"
    "  --oom-score-adj N                  -1000 to 1000\n"
    "  --rlimit NAME=SOFT:HARD            nofile, core, memlock, fsize, nproc, as; N or 'unlimited'\n"
    "  --umask OCTAL                      077 unless given\n"
    "  --keep-fds N                       close every descriptor from N on\n"
    "  --pid-fd N                         write 'PID STARTTICKS BOOTID' to this descriptor\n"
    "  --die-with PID                     be killed when this process, the parent, ends\n"
    "  --cgroup DIRECTORY                 become a member of this control group\n"
    "  --virtiofsd PATH --directories-fd N  what serves directories, and the locked file that tells of it\n"
    "  --directory N:rw:PATH              serve a directory (ro: to be read only), by descriptor N of the program\n"
    "  --view DIRECTORY                   show the program this directory at /mnt, to be read whoever owns what is in it\n"
    "PROGRAM is a path; PATH is not searched.\n";

__attribute__((noreturn, format(printf, 1, 2))) static void refuse(const char *format, ...)
{
    va_list arguments;

    fputs("roost-launcher: ", stderr);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fprintf(stderr, "\n%s", usage);
    exit(EXIT_LAUNCH_FAILED);
}

/* Digits only, from `text` to `end`: no sign, no blank, no empty string. */
static bool read_digits(const char *text, const char *end, unsigned base, uint64_t max, uint64_t *result)
{
    uint64_t number = 0;

    if (text == end)
        return false;
    for (; text < end; text++) {
        unsigned digit = (unsigned)(unsigned char)*text - '0';

        if (digit >= base || number > (max - digit) / base)
            return false;
        number = number * base + digit;
    }
    *result = number;
    return true;
}

static uint64_t number_option(const char *name, const char *value, unsigned base, uint64_t min, uint64_t max)
{
    uint64_t number;

    if (!read_digits(value, value + strlen(value), base, max, &number) || number < min)
        refuse("%s: '%s' is not a number from %llu to %llu", name, value, (unsigned long long)min,
               (unsigned long long)max);
    return number;
}

static char *absolute_path(const char *name, const char *value)
{
    if (value[0] != '/')
        refuse("%s: '%s' is not an absolute path", name, value);
    return (char *)value;
}

/* 0 is what a guest must never be; the highest id means "unchanged" to setresuid(2). */
static uint32_t id_option(const char *name, const char *value)
{
    return (uint32_t)number_option(name, value, 10, 1, UINT32_MAX - 1);
}

static void read_uid(struct options *options, const char *name, const char *value)
{
    options->uid = id_option(name, value);
    options->uid_given = true;
}

static void read_gid(struct options *options, const char *name, const char *value)
{
    options->gid = id_option(name, value);
    options->gid_given = true;
}

static void read_groups(struct options *options, const char *name, const char *value)
{
    const char *from = value;

    options->groups_given = true;
    if (*value == '\0')
        return;
    for (;;) {
        const char *end = strchrnul(from, ',');
        uint64_t group;

        if (!read_digits(from, end, 10, UINT32_MAX - 1, &group) || group == 0)
            refuse("%s: '%s' is not a list of group numbers above 0", name, value);
        if (options->group_count == MAX_GROUPS)
            refuse("%s: more than %d groups", name, MAX_GROUPS);
        options->groups[options->group_count++] = (gid_t)group;
        if (*end == '\0')
            return;
        from = end + 1;
    }
}

static void read_oom_score_adj(struct options *options, const char *name, const char *value)
{
    bool negative = value[0] == '-';
    int size = (int)number_option(name, value + (negative ? 1 : 0), 10, 0, 1000);

    options->oom_score_adj = negative ? -size : size;
    options->oom_given = true;
}

static bool read_limit_value(const char *text, const char *end, rlim_t *result)
{
    static const char unlimited[] = "unlimited";
    uint64_t number;

    if ((size_t)(end - text) == strlen(unlimited) && strncmp(text, unlimited, strlen(unlimited)) == 0) {
        *result = RLIM_INFINITY;
        return true;
    }
    if (!read_digits(text, end, 10, RLIM_INFINITY - 1, &number))
        return false;
    *result = number;
    return true;
}

static struct limit *find_limit(struct options *options, const char *text, size_t length)
{
    for (size_t i = 0; i < LIMIT_COUNT; i++) {
        const char *name = options->limits[i].name;

        if (strlen(name) == length && strncmp(name, text, length) == 0)
            return &options->limits[i];
    }
    return NULL;
}

static void read_rlimit(struct options *options, const char *name, const char *value)
{
    const char *equals = strchr(value, '=');
    const char *colon = equals != NULL ? strchr(equals, ':') : NULL;
    struct limit *limit = equals != NULL ? find_limit(options, value, (size_t)(equals - value)) : NULL;

    if (limit == NULL || colon == NULL || !read_limit_value(equals + 1, colon, &limit->value.rlim_cur) ||
        !read_limit_value(colon + 1, colon + strlen(colon), &limit->value.rlim_max))
        refuse("%s: '%s' is not NAME=SOFT:HARD", name, value);
    if (limit->given)
        refuse("%s: %s is given twice", name, limit->name);
    limit->given = true;
}

static void read_umask(struct options *options, const char *name, const char *value)
{
    uint64_t mask;

    if (!read_digits(value, value + strlen(value), 8, 0777, &mask))
        refuse("%s: '%s' is not an octal number up to 777", name, value);
    options->umask = (mode_t)mask;
}

static void read_keep_fds(struct options *options, const char *name, const char *value)
{
    options->keep_fds = (int)number_option(name, value, 10, FIRST_FREE_FD, INT_MAX);
}

static void read_pid_fd(struct options *options, const char *name, const char *value)
{
    options->pid_fd = (int)number_option(name, value, 10, FIRST_FREE_FD, INT_MAX);
}

static void read_die_with(struct options *options, const char *name, const char *value)
{
    options->parent = (pid_t)number_option(name, value, 10, 1, INT_MAX);
}

static void read_cgroup(struct options *options, const char *name, const char *value)
{
    options->group = absolute_path(name, value);
}

static void read_virtiofsd(struct options *options, const char *name, const char *value)
{
    options->virtiofsd = absolute_path(name, value);
}

static void read_directories_fd(struct options *options, const char *name, const char *value)
{
    options->directories_fd = (int)number_option(name, value, 10, FIRST_FREE_FD, LAST_NUMBERED_FD);
}

static void read_directory(struct options *options, const char *name, const char *value)
{
    const char *colon = strchrnul(value, ':');
    struct directory *directory = &options->directories[options->directory_count];
    uint64_t fd;

    if (options->directory_count == MAX_DIRECTORIES)
        refuse("%s: more than %d directories", name, MAX_DIRECTORIES);
    if (!read_digits(value, colon, 10, LAST_NUMBERED_FD, &fd) || fd < FIRST_FREE_FD ||
        (strncmp(colon, ":rw:/", 5) != 0 && strncmp(colon, ":ro:/", 5) != 0))
        refuse("%s: '%s' is not N:rw:PATH or N:ro:PATH", name, value);
    directory->fd = (int)fd;
    directory->read_only = colon[2] == 'o';
    directory->path = colon + 4;
    options->directory_count++;
}

static void read_view(struct options *options, const char *name, const char *value)
{
    options->view = absolute_path(name, value);
}

static const struct rule {
    const char *name;
    bool repeatable;
    void (*read)(struct options *options, const char *name, const char *value);
} rules[] = {
    {"--uid", false, read_uid},
    {"--gid", false, read_gid},
    {"--groups", false, read_groups},
    {"--oom-score-adj", false, read_oom_score_adj},
    {"--rlimit", true, read_rlimit},
    {"--umask", false, read_umask},
    {"--keep-fds", false, read_keep_fds},
    {"--pid-fd", false, read_pid_fd},
    {"--die-with", false, read_die_with},
    {"--cgroup", false, read_cgroup},
    {"--virtiofsd", false, read_virtiofsd},
    {"--directories-fd", false, read_directories_fd},
    {"--directory", true, read_directory},
    {"--view", false, read_view},
};

#define RULE_COUNT (sizeof rules / sizeof rules[0])

static size_t find_rule(const char *name)
{
    for (size_t i = 0; i < RULE_COUNT; i++)
        if (strcmp(rules[i].name, name) == 0)
            return i;
    refuse("unknown option '%s'", name);
}

static void check_directories(const struct options *options)
{
    if (options->directory_count == 0)
        return;
    if (options->virtiofsd == NULL || options->directories_fd < 0)
        refuse("--directory needs --virtiofsd and --directories-fd");
    for (size_t i = 0; i < options->directory_count; i++) {
        int fd = options->directories[i].fd;

        if (options->keep_fds >= 0 && fd >= options->keep_fds)
            refuse("--directory %d is closed by --keep-fds %d", fd, options->keep_fds);
        if (fd == options->directories_fd)
            refuse("--directory %d is --directories-fd", fd);
    }
}

static void check_together(const struct options *options)
{
    check_directories(options);
    if (options->uid_given != options->gid_given || options->gid_given != options->groups_given)
        refuse("--uid, --gid and --groups go together");
    if (options->keep_fds >= 0 && options->pid_fd >= options->keep_fds)
        refuse("--pid-fd %d is closed by --keep-fds %d", options->pid_fd, options->keep_fds);
    if (options->program[0] == NULL)
        refuse("no program is given");
    if (strchr(options->program[0], '/') == NULL)
        refuse("'%s' is not a path", options->program[0]);
}

static void set_defaults(struct options *options)
{
    *options = (struct options){
        .umask = 077,
        .keep_fds = -1,
        .pid_fd = -1,
        .directories_fd = -1,
        .limits =
            {
                {.name = "nofile", .resource = RLIMIT_NOFILE},
                {.name = "core", .resource = RLIMIT_CORE},
                {.name = "memlock", .resource = RLIMIT_MEMLOCK},
                {.name = "fsize", .resource = RLIMIT_FSIZE},
                {.name = "nproc", .resource = RLIMIT_NPROC},
                {.name = "as", .resource = RLIMIT_AS},
            },
    };
}

void read_options(int count, char **arguments, struct options *options)
{
    bool seen[RULE_COUNT] = {false};
    int at = 1;

    set_defaults(options);
    while (at < count && strcmp(arguments[at], "--") != 0) {
        const char *name = arguments[at];
        size_t rule = find_rule(name);

        if (at + 1 == count)
            refuse("%s needs a value", name);
        if (seen[rule] && !rules[rule].repeatable)
            refuse("%s is given twice", name);
        seen[rule] = true;
        rules[rule].read(options, name, arguments[at + 1]);
        at += 2;
    }
    if (at >= count)
        refuse("'--' and a program are missing");
    options->program = &arguments[at + 1];
    check_together(options);
}
