/*
 * Both files are replaced, not written through: an image's may be a link to a place that
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

/* A file that is being put together in memory. */
struct draft {
    FILE *file;
    char *text;
    size_t size;
};

static bool begin(struct draft *draft)
{
    *draft = (struct draft){0};
    draft->file = open_memstream(&draft->text, &draft->size);
    return draft->file != NULL;
}

/* One line each, with the word before it; a text with a line break would be another setting. */
static const char *put_lines(struct draft *draft, const struct fields *request, uint16_t tag, const char *word)
{
    const char *failed = NULL;
    size_t count;
    char **texts = read_texts(request, tag, &count);

    errno = EINVAL;
    if (texts == NULL)
        return "a text with a NUL byte";
    for (char **text = texts; *text != NULL && failed == NULL; text++) {
        if (strpbrk(*text, "\r\n") != NULL)
            failed = "a text of several lines";
        else
            fprintf(draft->file, "%s%s\n", word, *text);
    }
    free_texts(texts);
    if (failed != NULL)
        errno = EINVAL;
    return failed;
}

/* resolv.conf(5): the last search line counts, so there is one. */
static const char *put_search(struct draft *draft, const struct fields *request)
{
    const char *failed = NULL;
    size_t count;
    char **domains = read_texts(request, TAG_SEARCH, &count);

    errno = EINVAL;
    if (domains == NULL)
        return "a search domain with a NUL byte";
    if (count > 0)
        fputs("search", draft->file);
    for (char **domain = domains; *domain != NULL && failed == NULL; domain++) {
        if (strpbrk(*domain, " \r\n") != NULL)
            failed = "a search domain of several words";
        else
            fprintf(draft->file, " %s", *domain);
    }
    if (count > 0)
        fputc('\n', draft->file);
    free_texts(domains);
    if (failed != NULL)
        errno = EINVAL;
    return failed;
}

/* Ends the draft, and puts it in the file's place unless something has failed before. */
static const char *end(struct draft *draft, const char *path, const char *failed)
{
    int error = errno;

    if (fclose(draft->file) != 0 && failed == NULL) {
        failed = "memory";
        error = errno;
    }
    if (failed == NULL &&
        (!make_directories("/etc", 0755) || !replace_file(path, draft->text, draft->size, 0644))) {
        failed = path;
        error = errno;
    }
    free(draft->text);
    errno = error;
    return failed;
}

const char *write_resolver(const struct fields *request)
{
    struct draft draft;
    const char *failed;

    if (!begin(&draft))
        return "memory";
    failed = put_lines(&draft, request, TAG_NAMESERVER, "nameserver ");
    if (failed == NULL)
        failed = put_search(&draft, request);
    if (failed == NULL)
        failed = put_lines(&draft, request, TAG_OPTION, "options ");
    return end(&draft, "/etc/resolv.conf", failed);
}

const char *write_hosts(const struct fields *request)
{
    struct draft draft;

    if (!begin(&draft))
        return "memory";
    fputs("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n", draft.file);
    return end(&draft, "/etc/hosts", put_lines(&draft, request, TAG_HOST, ""));
}

static void answer(const char *failed, struct work_files *files)
{
    if (failed != NULL)
        work_fail(files, "%s", failed);
    work_reply(files, NULL);
}

void set_resolver(const struct fields *request, struct work_files *files)
{
    answer(write_resolver(request), files);
}

void set_hosts(const struct fields *request, struct work_files *files)
{
    answer(write_hosts(request), files);
}
