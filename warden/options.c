/* Reads the command line, as strictly as roost-launcher does: a container begun with half of what was asked looks well. */
#define _GNU_SOURCE
#include "options.h"

#include "process.h"

#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
    "usage: roost-warden OPTION VALUE... [-- INIT [ARGUMENT]...]\n"
    "       roost-warden --mounted OPTION VALUE... -- PROGRAM [ARGUMENT]...\n"
    "       roost-warden --clear --cgroup NAME [--after PIDFD]\n"
    "       roost-warden --probe [DIRECTORY]...\n"
    "  --lxcpath DIRECTORY --name NAME    the container; its configuration is DIRECTORY/NAME/config\n"
    "  --run DIRECTORY                    where its root file system is mounted, in a namespace of its own\n"
    "  --image FILE | --lower DIRECTORY   what is below: a squashfs image, or a directory\n"
    "  --upper DIRECTORY                  has 'upper' and 'work'\n"
    "  --ids FIRST:COUNT                  what the container's ids are on the host\n"
    "  --cgroup NAME                      the group that all of its groups are in\n"
    "  --lxc-log FILE                     liblxc's log, begun anew\n"
    "  --halt-signal N                    what asks the init to shut down; SIGRTMIN+3 for systemd, else SIGPWR, unless given\n"
    "  --agent PATH --agent-fds C:S       roost-init, and the sockets on which it listens\n"
    "  --programs DIRECTORY               liblxc's; /usr/bin unless given\n"
    "  --guard yes                        one more process, which ends the container when this one is killed\n"
    "--mounted takes --run, --image or --lower, and --upper if that is wanted. Paths are absolute.\n";

__attribute__((noreturn, format(printf, 1, 2))) static void refuse(const char *format, ...)
{
    va_list arguments;

    fprintf(stderr, "%s: ", program_name);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fprintf(stderr, "\n%s", usage);
    exit(EXIT_LAUNCH_FAILED);
}

/* Digits only, up to one of `ends`; where they end, or NULL. */
static const char *read_number(const char *text, const char *ends, uint64_t min, uint64_t max, uint64_t *number)
{
    const char *at = text;

    *number = 0;
    for (; *at >= '0' && *at <= '9'; at++) {
        *number = *number * 10 + (uint64_t)(*at - '0');
        if (*number > max)
            return NULL;
    }
    return at == text || *number < min || strchr(ends, *at) == NULL ? NULL : at;
}

static bool read_pair(const char *value, uint64_t min, uint64_t max, uint64_t *first, uint64_t *second)
{
    const char *colon = read_number(value, ":", min, max, first);

    return colon != NULL && *colon == ':' && read_number(colon + 1, "", min, max, second) != NULL;
}

static void read_path(const char *name, const char *value, const char **result)
{
    if (value[0] != '/')
        refuse("%s: '%s' is not an absolute path", name, value);
    *result = value;
}

/* It becomes a part of paths. */
static void read_name(const char *name, const char *value, const char **result)
{
    if (value[0] == '\0' || value[0] == '.' || value[0] == '-' || strchr(value, '/') != NULL || strlen(value) > NAME_MAX)
        refuse("%s: '%s' is not a name", name, value);
    *result = value;
}

static void read_ids(struct options *options, const char *name, const char *value)
{
    uint64_t first, count;

    /* 0 of the host is what a container's root must never be. */
    if (!read_pair(value, 1, UINT32_MAX - 1, &first, &count) || first + count > UINT32_MAX)
        refuse("%s: '%s' is not FIRST:COUNT", name, value);
    options->first_id = (uid_t)first;
    options->id_count = (uid_t)count;
}

static void read_agent_fds(struct options *options, const char *name, const char *value)
{
    uint64_t control, streams;

    if (!read_pair(value, FIRST_FREE_FD, INT_MAX - 1, &control, &streams) || control == streams)
        refuse("%s: '%s' is not C:S, two descriptors from %d on", name, value, FIRST_FREE_FD);
    options->control_fd = (int)control;
    options->streams_fd = (int)streams;
}

static void read_guard(struct options *options, const char *name, const char *value)
{
    if (strcmp(value, "yes") != 0)
        refuse("%s: '%s' is not yes", name, value);
    options->guard = true;
}

static void read_halt_signal(struct options *options, const char *name, const char *value)
{
    uint64_t number;

    if (read_number(value, "", 1, (uint64_t)SIGRTMAX, &number) == NULL)
        refuse("%s: '%s' is not a signal's number", name, value);
    options->halt_signal = (int)number;
}

static const struct rule {
    const char *name;
    size_t place; /* of a string in the options */
    void (*read_text)(const char *name, const char *value, const char **result);
    void (*read)(struct options *options, const char *name, const char *value);
    bool of_mounted;
} rules[] = {
    {"--lxcpath", offsetof(struct options, lxcpath), read_path, NULL, false},
    {"--name", offsetof(struct options, name), read_name, NULL, false},
    {"--run", offsetof(struct options, run), read_path, NULL, true},
    {"--image", offsetof(struct options, image), read_path, NULL, true},
    {"--lower", offsetof(struct options, lower), read_path, NULL, true},
    {"--upper", offsetof(struct options, upper), read_path, NULL, true},
    {"--ids", 0, NULL, read_ids, false},
    {"--cgroup", offsetof(struct options, cgroup), read_name, NULL, false},
    {"--lxc-log", offsetof(struct options, lxc_log), read_path, NULL, false},
    {"--halt-signal", 0, NULL, read_halt_signal, false},
    {"--agent", offsetof(struct options, agent), read_path, NULL, false},
    {"--agent-fds", 0, NULL, read_agent_fds, false},
    {"--programs", offsetof(struct options, programs), read_path, NULL, false},
    {"--guard", 0, NULL, read_guard, false},
};

#define RULE_COUNT (sizeof rules / sizeof rules[0])

static size_t find_rule(const char *name)
{
    for (size_t i = 0; i < RULE_COUNT; i++)
        if (strcmp(rules[i].name, name) == 0)
            return i;
    refuse("unknown option '%s'", name);
}

static void check_together(const struct options *options, const bool *seen)
{
    for (size_t i = 0; i < RULE_COUNT; i++)
        if (options->mounted && seen[i] && !rules[i].of_mounted)
            refuse("%s has no meaning for --mounted", rules[i].name);
    if ((options->image == NULL) == (options->lower == NULL))
        refuse("one of --image and --lower is needed");
    if (options->run == NULL || (options->upper == NULL && !options->mounted))
        refuse("--run and --upper are needed");
    if (options->mounted) {
        if (options->program[0] == NULL || options->program[0][0] != '/')
            refuse("--mounted needs '--' and the path of a program");
        return;
    }
    if (options->lxcpath == NULL || options->name == NULL || options->id_count == 0 || options->cgroup == NULL ||
        options->lxc_log == NULL)
        refuse("--lxcpath, --name, --ids, --cgroup and --lxc-log are needed");
    if ((options->agent == NULL) != (options->control_fd < 0))
        refuse("--agent and --agent-fds go together");
}

static bool read_clear(int count, char **arguments, struct options *options)
{
    uint64_t fd;

    if ((count != 4 && count != 6) || strcmp(arguments[1], "--clear") != 0 || strcmp(arguments[2], "--cgroup") != 0)
        return false;
    read_name("--cgroup", arguments[3], &options->clear);
    if (count == 4)
        return true;
    if (strcmp(arguments[4], "--after") != 0 || read_number(arguments[5], "", 0, INT_MAX, &fd) == NULL)
        refuse("--clear takes --cgroup, and --after with a descriptor");
    options->after_fd = (int)fd;
    return true;
}

void read_options(int count, char **arguments, struct options *options)
{
    bool seen[RULE_COUNT] = {false};
    int at = 1;

    *options = (struct options){
        .programs = "/usr/bin",
        .after_fd = -1,
        .control_fd = -1,
        .streams_fd = -1,
    };
    if (read_clear(count, arguments, options))
        return;
    if (count > 1 && strcmp(arguments[1], "--probe") == 0) {
        options->probe = &arguments[2];
        return;
    }
    if (count > 1 && strcmp(arguments[1], "--mounted") == 0) {
        options->mounted = true;
        at = 2;
    }
    while (at < count && strcmp(arguments[at], "--") != 0) {
        const char *name = arguments[at], *value = arguments[at + 1];
        size_t rule = find_rule(name);

        if (value == NULL)
            refuse("%s needs a value", name);
        if (seen[rule])
            refuse("%s is given twice", name);
        seen[rule] = true;
        if (rules[rule].read != NULL)
            rules[rule].read(options, name, value);
        else
            rules[rule].read_text(name, value, (const char **)(void *)((char *)options + rules[rule].place));
        at += 2;
    }
    options->program = &arguments[at < count ? at + 1 : count];
    check_together(options, seen);
}
