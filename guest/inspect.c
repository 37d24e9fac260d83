/* See inspect.h. */
#define _GNU_SOURCE
#include "inspect.h"

#include "boot.h"
#include "files.h"
#include "filesystems.h"
#include "renewal.h"
#include "session.h"

#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>

/* Read once: it is a boot's, and so that of all forks of it. */
static const char *boot_id(void)
{
    static char text[64];

    if (text[0] == '\0' && read_small_file("/proc/sys/kernel/random/boot_id", text, sizeof text))
        text[strcspn(text, "\n")] = '\0';
    return text;
}

void put_facts(struct field_writer *writer)
{
    size_t length;
    const uint8_t *token = identity_token(&length);

    put_text_field(writer, TAG_AGENT, AGENT_VERSION);
    if (boot_id()[0] != '\0')
        put_text_field(writer, TAG_BOOT_ID, boot_id());
    put_u8_field(writer, TAG_STATE, boot_failure() == NULL);
    if (boot_failure() != NULL)
        put_text_field(writer, TAG_MESSAGE, boot_failure());
    if (length > 0)
        put_field(writer, TAG_TOKEN, token, length);
}

/* A line of /proc/meminfo, in bytes. */
static void put_memory(struct field_writer *writer, uint16_t tag, const char *text, const char *name)
{
    const char *line = strstr(text, name);
    unsigned long long kilobytes;

    if (line != NULL && sscanf(line + strlen(name), " %llu kB", &kilobytes) == 1)
        put_u64_field(writer, tag, kilobytes * 1024);
}

void inspect(uint32_t id, const struct fields *request)
{
    uint8_t bytes[4096];
    struct field_writer writer = {.bytes = bytes, .capacity = sizeof bytes};
    struct utsname names;
    struct timespec now;
    char text[2048];

    (void)request;
    put_facts(&writer);
    if (uname(&names) == 0) {
        put_text_field(&writer, TAG_RELEASE, names.release);
        put_text_field(&writer, TAG_HOSTNAME, names.nodename);
    }
    if (clock_gettime(CLOCK_BOOTTIME, &now) == 0)
        put_u64_field(&writer, TAG_UPTIME, (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000);
    if (clock_gettime(CLOCK_REALTIME, &now) == 0)
        put_u64_field(&writer, TAG_TIME, (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec);
    if (read_small_file("/proc/meminfo", text, sizeof text)) {
        put_memory(&writer, TAG_MEMORY_TOTAL, text, "MemTotal:");
        put_memory(&writer, TAG_MEMORY_AVAILABLE, text, "MemAvailable:");
    }
    put_u8_field(&writer, TAG_FROZEN, filesystems_are_frozen());
    reply(id, &writer);
}
