/* What the monitor is asked: most of it is the container's to do. */
#define _GNU_SOURCE
#include "agent.h"
#include "container.h"
#include "monitor.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define MOST_KEPT 8
#define LONGEST_NAME 64

/* Descriptors that are the warden's for as long as it lives, or until they are closed by name. */
static struct kept {
    char name[LONGEST_NAME]; /* empty: none */
    int fd;
} kept[MOST_KEPT];

static bool name_in(struct text arguments, struct text *name)
{
    const char *place = NULL;
    struct text member, value;

    while (arguments.start != NULL && next_member(arguments, &place, &member, &value))
        if (text_is(member, "fdname"))
            return string_of(value, name) && name->length > 0 && name->length < LONGEST_NAME;
    return false;
}

static struct kept *find_kept(struct text name)
{
    for (size_t i = 0; i < MOST_KEPT; i++)
        if (kept[i].name[0] != '\0' ? text_is(name, kept[i].name) : name.length == 0)
            return &kept[i];
    return NULL;
}

static void keep_descriptor(struct text arguments, struct asker *asker)
{
    struct text name;
    struct kept *one;
    int fd = take_passed();

    if (fd < 0) {
        refuse(asker, GENERIC, "No file descriptor supplied via SCM_RIGHTS");
        return;
    }
    if (!name_in(arguments, &name)) {
        close(fd);
        refuse(asker, GENERIC, "Parameter 'fdname' is a name of less than %d bytes", LONGEST_NAME);
        return;
    }
    one = find_kept(name);
    if (one != NULL)
        close(one->fd);
    else
        one = find_kept((struct text){0});
    if (one == NULL) {
        close(fd);
        refuse(asker, GENERIC, "%d file descriptors are kept already", MOST_KEPT);
        return;
    }
    (void)snprintf(one->name, sizeof one->name, "%.*s", (int)name.length, name.start);
    one->fd = fd;
    answer(asker, NULL);
}

static void close_descriptor(struct text arguments, struct asker *asker)
{
    struct text name;
    struct kept *one = name_in(arguments, &name) ? find_kept(name) : NULL;

    if (one == NULL) {
        refuse(asker, GENERIC, "No file descriptor of this name is kept");
        return;
    }
    close(one->fd);
    one->name[0] = '\0';
    answer(asker, NULL);
}

static void query_status(struct text arguments, struct asker *asker)
{
    const char *status = container_status();
    char value[64];

    (void)arguments;
    (void)snprintf(value, sizeof value, "{\"status\": \"%s\", \"running\": %s}", status,
                   strcmp(status, "running") == 0 ? "true" : "false");
    answer(asker, value);
}

static void query_chardev(struct text arguments, struct asker *asker)
{
    char value[256] = "[]";
    const char *is_open = agent_is_open() ? "true" : "false";

    (void)arguments;
    if (agent_is_wanted())
        (void)snprintf(value, sizeof value,
                       "[{\"label\": \"agent\", \"filename\": \"unix\", \"frontend-open\": %s}, "
                       "{\"label\": \"streams\", \"filename\": \"unix\", \"frontend-open\": %s}]",
                       is_open, is_open);
    answer(asker, value);
}

static void query_kvm(struct text arguments, struct asker *asker)
{
    (void)arguments;
    answer(asker, "{\"enabled\": false, \"present\": false}");
}

static const struct {
    const char *name;
    void (*handle)(struct text arguments, struct asker *asker); /* or */
    void (*of_container)(struct asker *asker);
} commands[] = {
    {"query-status", query_status, NULL},
    {"query-chardev", query_chardev, NULL},
    {"query-kvm", query_kvm, NULL},
    {"getfd", keep_descriptor, NULL},
    {"closefd", close_descriptor, NULL},
    {"cont", NULL, container_continue},
    {"stop", NULL, container_stop},
    {"system_powerdown", NULL, container_power_down},
    {"system_reset", NULL, container_reset},
    {"quit", NULL, container_quit},
};

void do_command(struct text name, struct text arguments, struct asker *asker)
{
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        if (!text_is(name, commands[i].name))
            continue;
        if (commands[i].handle != NULL)
            commands[i].handle(arguments, asker);
        else
            commands[i].of_container(asker);
        return;
    }
    refuse(asker, NOT_FOUND, "The command %.*s has not been found", (int)(name.length < 200 ? name.length : 200),
           name.start);
}
