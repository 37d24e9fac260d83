/* Lists that come from JavaScript: of strings, as exec wants them, and of numbers. */
#define _GNU_SOURCE
#include "addon.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static bool out_of_memory(napi_env env, const char *what)
{
    struct failure failure;

    failed_with(&failure, "malloc", ENOMEM);
    throw_failure(env, &failure, what);
    return false;
}

/* A longer list than memory is refused as such; the kernel has limits of its own. */
static bool list_length(napi_env env, napi_value list, const char *what, uint32_t *length)
{
    if (napi_get_array_length(env, list, length) == napi_ok)
        return true;
    return throw_type_error(env, what, "an array");
}

/* NULL, with an exception pending, when it is no string or there is no memory. */
static char *new_string(napi_env env, napi_value value, const char *what)
{
    size_t length;
    char *text;

    if (napi_get_value_string_utf8(env, value, NULL, 0, &length) != napi_ok) {
        throw_type_error(env, what, "strings only");
        return NULL;
    }
    text = malloc(length + 1);
    if (text == NULL) {
        out_of_memory(env, what);
        return NULL;
    }
    if (read_string(env, value, what, text, length + 1))
        return text;
    free(text);
    return NULL;
}

void free_strings(char **strings)
{
    if (strings == NULL)
        return;
    for (char **string = strings; *string != NULL; string++)
        free(*string);
    free(strings);
}

char **read_strings(napi_env env, napi_value list, const char *what)
{
    napi_value element;
    uint32_t length;
    char **strings;

    if (!list_length(env, list, what, &length))
        return NULL;
    strings = calloc((size_t)length + 1, sizeof *strings);
    if (strings == NULL) {
        out_of_memory(env, what);
        return NULL;
    }
    for (uint32_t i = 0; i < length; i++) {
        if (succeeded(env, napi_get_element(env, list, i, &element)))
            strings[i] = new_string(env, element, what);
        if (strings[i] == NULL) {
            free_strings(strings);
            return NULL;
        }
    }
    return strings;
}

int *read_ints(napi_env env, napi_value list, const char *what, size_t *count)
{
    napi_value element;
    uint32_t length;
    int *numbers;

    if (!list_length(env, list, what, &length))
        return NULL;
    numbers = calloc((size_t)length + 1, sizeof *numbers);
    if (numbers == NULL) {
        out_of_memory(env, what);
        return NULL;
    }
    for (uint32_t i = 0; i < length; i++)
        if (!succeeded(env, napi_get_element(env, list, i, &element)) ||
            !read_int(env, element, what, &numbers[i])) {
            free(numbers);
            return NULL;
        }
    *count = length;
    return numbers;
}
