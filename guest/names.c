/*
 * Both files are replaced, not written into: an image's may be a link to a place that
 * only its own init would fill.
 */
#define _GNU_SOURCE
#include "names.h"

#include "files.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One line each, with the word before it; a text with a line break would be another setting. */
static void put_lines(FILE *file, const struct fields *request, struct work_files *files, uint16_t tag,
                      const char *word)
{
    size_t count;
    char **texts = read_texts(request, tag, &count);

    errno = EINVAL;
    if (texts == NULL)
        work_fail(files, "a text with a NUL byte");
    for (char **text = texts; *text != NULL; text++) {
        if (strpbrk(*text, "\r\n") != NULL)
            work_fail(files, "a text of several lines");
        fprintf(file, "%s%s\n", word, *text);
    }
    free_texts(texts);
}

static void replace(struct work_files *files, const char *path, FILE *file, char **text, size_t *size)
{
    if (fclose(file) != 0)
        work_fail(files, "memory");
    if (!make_directories("/etc", 0755) || !replace_file(path, *text, *size, 0644))
        work_fail(files, "write %s", path);
}

void write_resolver(const struct fields *request, struct work_files *files)
{
    char *text = NULL;
    size_t size = 0, count;
    FILE *file = open_memstream(&text, &size);
    char **domains = read_texts(request, TAG_SEARCH, &count);

    if (file == NULL || domains == NULL)
        work_fail(files, "memory");
    put_lines(file, request, files, TAG_NAMESERVER, "nameserver ");
    /* resolv.conf(5): the last search line counts, so there is one. */
    if (count > 0)
        fputs("search", file);
    for (char **domain = domains; *domain != NULL; domain++) {
        errno = EINVAL;
        if (strpbrk(*domain, " \r\n") != NULL)
            work_fail(files, "a search domain of several words");
        fprintf(file, " %s", *domain);
    }
    if (count > 0)
        fputc('\n', file);
    put_lines(file, request, files, TAG_OPTION, "options ");
    replace(files, "/etc/resolv.conf", file, &text, &size);
}

void write_hosts(const struct fields *request, struct work_files *files)
{
    char *text = NULL;
    size_t size = 0;
    FILE *file = open_memstream(&text, &size);

    if (file == NULL)
        work_fail(files, "memory");
    fputs("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n", file);
    put_lines(file, request, files, TAG_HOST, "");
    replace(files, "/etc/hosts", file, &text, &size);
}

void set_resolver(const struct fields *request, struct work_files *files)
{
    write_resolver(request, files);
    work_reply(files, NULL);
}

void set_hosts(const struct fields *request, struct work_files *files)
{
    write_hosts(request, files);
    work_reply(files, NULL);
}
