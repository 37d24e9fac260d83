/* See settings.h. Words of others are theirs; a word of ours that is not understood is an error, not a guess.
 */
#define _GNU_SOURCE
#include "settings.h"

#include <stdio.h>
#include <string.h>

static const char prefix[] = "roost.";

static char *setting_of(struct settings *settings, const char *name, size_t length)
{
    const struct {
        const char *name;
        char *value;
    } known[] = {
        {"root", settings->root},
        {"root.type", settings->root_type},
        {"upper", settings->upper},
        {"upper.type", settings->upper_type},
        {"upper.options", settings->upper_options},
        {"transport", settings->transport},
    };

    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strlen(known[i].name) == length && strncmp(known[i].name, name, length) == 0)
            return known[i].value;
    return NULL;
}

static bool read_word(const char *word, size_t length, struct settings *settings)
{
    const char *equals = memchr(word, '=', length);
    size_t name = equals != NULL ? (size_t)(equals - word) : length;
    char *value = setting_of(settings, word, name);

    if (value == NULL || equals == NULL || length - name - 1 >= SETTING_BYTES)
        return false;
    memcpy(value, equals + 1, length - name - 1);
    value[length - name - 1] = '\0';
    return true;
}

bool read_settings(const char *line, struct settings *settings, char wrong[SETTING_BYTES])
{
    *settings = (struct settings){
        .root_type = "squashfs", .upper = "tmpfs", .upper_type = "ext4", .transport = "virtio"};
    for (;;) {
        size_t length;

        line += strspn(line, " \t\n");
        length = strcspn(line, " \t\n");
        if (length == 0)
            return true;
        if (strncmp(line, prefix, strlen(prefix)) == 0 &&
            !read_word(line + strlen(prefix), length - strlen(prefix), settings)) {
            (void)snprintf(wrong, SETTING_BYTES, "%.*s", (int)length, line);
            return false;
        }
        line += length;
    }
}
