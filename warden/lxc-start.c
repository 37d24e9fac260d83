/* See lxc-start.h. */
#define _GNU_SOURCE
#include "lxc-start.h"

#include "process.h"
#include "spawn.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static struct {
    pid_t pid;
    int words; /* what it complains of */
} lxc_info;

static void add(char ***at, const char *argument)
{
    *(*at)++ = (char *)argument;
}

static char *setting(const char *format, const char *value)
{
    char *text;

    if (asprintf(&text, format, value) < 0)
        fail("asprintf");
    return text;
}

char **lxc_start_line(const struct options *options, const char *terminal)
{
    size_t count = 0;
    char **line, **at;

    while (options->program[count] != NULL)
        count++;
    at = line = calloc(count + 24, sizeof *line);
    if (line == NULL)
        fail("calloc");
    add(&at, path_in(options->programs, "lxc-start"));
    add(&at, "-F");
    /* Without it the init has whatever lxc-start has open. */
    add(&at, "-C");
    add(&at, "-P");
    add(&at, options->lxcpath);
    add(&at, "-n");
    add(&at, options->name);
    add(&at, "-o");
    add(&at, options->lxc_log);
    add(&at, "-l");
    add(&at, "INFO");
    add(&at, "-s");
    add(&at, setting("lxc.rootfs.path=dir:%s/merged", options->run));
    add(&at, "-s");
    add(&at, setting("lxc.console.path=%s", terminal));
    if (count > 0)
        add(&at, "--");
    for (size_t i = 0; i < count; i++)
        add(&at, options->program[i]);
    return line;
}

/* Words of a program as one line: what is behind the last ` - ` of its first, where liblxc puts them. */
static void first_words(char *text)
{
    char *dash;

    text[strcspn(text, "\n")] = '\0';
    while ((dash = strstr(text, " - ")) != NULL)
        memmove(text, dash + 3, strlen(dash + 3) + 1);
}

/* lxc-start would say it only when the container is to run. */
void begin_check(const struct options *options)
{
    char *path = path_in(options->programs, "lxc-info");
    char *const arguments[] = {path, "-P", (char *)options->lxcpath, "-n", (char *)options->name,
                               "-c", "lxc.uts.name", "-o", "/dev/stderr", "-l", "ERROR", NULL};
    int ends[2];

    if (pipe2(ends, O_CLOEXEC) < 0)
        fail("pipe");
    lxc_info.pid = spawn(arguments, &(struct files){.of = {-1, ends[1]}, .count = 2});
    lxc_info.words = ends[0];
    close(ends[1]);
    free(path);
}

void end_check(const struct options *options)
{
    char said[2048];
    size_t length = 0;
    ssize_t got;
    int status;

    while ((got = read(lxc_info.words, said + length, sizeof said - 1 - length)) > 0)
        length += (size_t)got;
    said[length] = '\0';
    close(lxc_info.words);
    if (waitpid(lxc_info.pid, &status, 0) != lxc_info.pid)
        fail("wait for lxc-info");
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return;
    first_words(said);
    fprintf(stderr, "%s: the configuration of %s: %s\n", program_name, options->name,
            length > 0 ? said : "lxc-info failed without a word");
    exit(EXIT_LAUNCH_FAILED);
}
