/* The fields of a payload: tag (u16), length (u32), value. See docs/guest-protocol.md, "Fields". */
#ifndef ROOST_GUEST_FIELDS_H
#define ROOST_GUEST_FIELDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MAX_REQUEST_BYTES (1024 * 1024)

enum tag {
    TAG_VERSION = 1,
    TAG_VERSION_MAX = 2,
    TAG_AGENT = 3,
    TAG_BOOT_ID = 4,
    TAG_STATE = 5,
    TAG_MESSAGE = 6,
    TAG_ERRNO = 7,
    TAG_TOKEN = 8,
    TAG_COUNT = 9,
    TAG_TIMEOUT = 10,
    TAG_ECHO = 11,
    TAG_PROCESS = 16,
    TAG_PID = 17,
    TAG_ARGUMENT = 18,
    TAG_ENVIRONMENT = 19,
    TAG_DIRECTORY = 20,
    TAG_USER = 21,
    TAG_GROUP = 22,
    TAG_TERMINAL = 23,
    TAG_STDIN = 24,
    TAG_STDOUT = 25,
    TAG_STDERR = 26,
    TAG_WINDOW = 27,
    TAG_CAPABILITIES = 28,
    TAG_AMBIENT = 29,
    TAG_NO_NEW_PRIVILEGES = 30,
    TAG_RLIMIT = 31,
    TAG_CGROUP = 32,
    TAG_UMASK = 33,
    TAG_OOM_SCORE_ADJ = 34,
    TAG_SIGNAL = 35,
    TAG_ALL = 36,
    TAG_EXIT_CODE = 37,
    TAG_EXIT_SIGNAL = 38,
    TAG_CPU_TIME = 39,
    TAG_MAX_RSS = 40,
    TAG_PATH = 48,
    TAG_MODE = 49,
    TAG_UID = 50,
    TAG_GID = 51,
    TAG_SIZE = 52,
    TAG_MTIME = 53,
    TAG_TARGET = 54,
    TAG_STREAM = 55,
    TAG_IN_PLACE = 56,
    TAG_PARENTS = 57,
    TAG_SEED = 64,
    TAG_TIME = 65,
    TAG_HOSTNAME = 66,
    TAG_MACHINE_ID = 67,
    TAG_INTERFACE = 68,
    TAG_MAC = 69,
    TAG_NEW_MAC = 70,
    TAG_MTU = 71,
    TAG_UP = 72,
    TAG_ADDRESS = 73,
    TAG_ROUTE = 74,
    TAG_NAMESERVER = 75,
    TAG_SEARCH = 76,
    TAG_OPTION = 77,
    TAG_HOST = 78,
    TAG_REPLACE = 79,
    TAG_SOURCE = 88,
    TAG_FSTYPE = 89,
    TAG_MOUNT_FLAGS = 90,
    TAG_OPTIONS = 91,
    TAG_ACTION = 92,
    TAG_RELEASE = 96,
    TAG_UPTIME = 97,
    TAG_MEMORY_TOTAL = 98,
    TAG_MEMORY_AVAILABLE = 99,
    TAG_FROZEN = 100,
};

/* A payload whose form was checked: every field lies wholly in it. */
struct fields {
    const uint8_t *bytes;
    size_t length;
};

struct field {
    uint16_t tag;
    uint32_t length;
    const uint8_t *value;
};

/* A payload that is being written; `failed` once it did not fit. */
struct field_writer {
    uint8_t *bytes;
    size_t length, capacity;
    bool failed;
};

/* False if the bytes are no sequence of whole fields. */
bool check_fields(const struct fields *fields);

/* The field after `at` (0 at first), or false after the last. */
bool next_field(const struct fields *fields, size_t *at, struct field *field);

/* The first field of a tag. */
bool find_field(const struct fields *fields, uint16_t tag, struct field *field);
bool has_field(const struct fields *fields, uint16_t tag);

/* Whether each of the fields has a tag that stands in the list, which 0 ends. */
bool only_fields(const struct fields *fields, const uint16_t *allowed);

/* False if the field is missing or has another size. */
bool read_u8(const struct fields *fields, uint16_t tag, uint8_t *value);
bool read_u32(const struct fields *fields, uint16_t tag, uint32_t *value);
bool read_u64(const struct fields *fields, uint16_t tag, uint64_t *value);

/* A new string without NUL bytes; NULL if the field holds one, or there is no memory. */
char *field_text(const struct field *field);

/* The same for the first field of a tag; NULL also if there is none. */
char *read_text_field(const struct fields *fields, uint16_t tag);

/* All texts of a tag, NULL at the end; NULL if one holds a NUL byte, or there is no memory. For free_texts().
 */
char **read_texts(const struct fields *fields, uint16_t tag, size_t *count);
void free_texts(char **texts);

void put_field(struct field_writer *writer, uint16_t tag, const void *value, size_t length);
void put_text_field(struct field_writer *writer, uint16_t tag, const char *text);
void put_u8_field(struct field_writer *writer, uint16_t tag, uint8_t value);
void put_u16_field(struct field_writer *writer, uint16_t tag, uint16_t value);
void put_u32_field(struct field_writer *writer, uint16_t tag, uint32_t value);
void put_u64_field(struct field_writer *writer, uint16_t tag, uint64_t value);

#endif
