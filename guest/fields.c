/* The fields of a payload. Nothing here trusts a length. */
#define _GNU_SOURCE
#include "fields.h"

#include "frames.h"

#include <stdlib.h>
#include <string.h>

#define FIELD_HEADER_BYTES 6

bool next_field(const struct fields *fields, size_t *at, struct field *field)
{
    const uint8_t *bytes = fields->bytes + *at;
    size_t left = fields->length - *at;

    if (left < FIELD_HEADER_BYTES)
        return false;
    field->tag = get_u16(bytes);
    field->length = get_u32(bytes + 2);
    if (field->length > left - FIELD_HEADER_BYTES)
        return false;
    field->value = bytes + FIELD_HEADER_BYTES;
    *at += FIELD_HEADER_BYTES + field->length;
    return true;
}

bool check_fields(const struct fields *fields)
{
    struct field field;
    size_t at = 0;

    while (next_field(fields, &at, &field))
        continue;
    return at == fields->length;
}

bool find_field(const struct fields *fields, uint16_t tag, struct field *field)
{
    size_t at = 0;

    while (next_field(fields, &at, field))
        if (field->tag == tag)
            return true;
    return false;
}

bool has_field(const struct fields *fields, uint16_t tag)
{
    struct field field;

    return find_field(fields, tag, &field);
}

bool only_fields(const struct fields *fields, const uint16_t *allowed)
{
    struct field field;
    size_t at = 0;

    while (next_field(fields, &at, &field)) {
        const uint16_t *tag = allowed;

        while (*tag != 0 && *tag != field.tag)
            tag++;
        if (*tag == 0)
            return false;
    }
    return true;
}

bool read_u8(const struct fields *fields, uint16_t tag, uint8_t *value)
{
    struct field field;

    if (!find_field(fields, tag, &field) || field.length != 1)
        return false;
    *value = field.value[0];
    return true;
}

bool read_u32(const struct fields *fields, uint16_t tag, uint32_t *value)
{
    struct field field;

    if (!find_field(fields, tag, &field) || field.length != 4)
        return false;
    *value = get_u32(field.value);
    return true;
}

bool read_u64(const struct fields *fields, uint16_t tag, uint64_t *value)
{
    struct field field;

    if (!find_field(fields, tag, &field) || field.length != 8)
        return false;
    *value = get_u64(field.value);
    return true;
}

char *field_text(const struct field *field)
{
    char *text;

    if (memchr(field->value, '\0', field->length) != NULL)
        return NULL;
    text = malloc((size_t)field->length + 1);
    if (text != NULL) {
        memcpy(text, field->value, field->length);
        text[field->length] = '\0';
    }
    return text;
}

char *read_text_field(const struct fields *fields, uint16_t tag)
{
    struct field field;

    return find_field(fields, tag, &field) ? field_text(&field) : NULL;
}

char **read_texts(const struct fields *fields, uint16_t tag, size_t *count)
{
    struct field field;
    size_t at = 0, found = 0;
    char **texts;

    while (next_field(fields, &at, &field))
        found += field.tag == tag;
    texts = calloc(found + 1, sizeof *texts);
    if (texts == NULL)
        return NULL;
    *count = 0;
    for (at = 0; next_field(fields, &at, &field);) {
        if (field.tag != tag)
            continue;
        texts[*count] = field_text(&field);
        if (texts[*count] == NULL) {
            free_texts(texts);
            return NULL;
        }
        (*count)++;
    }
    return texts;
}

void free_texts(char **texts)
{
    if (texts == NULL)
        return;
    for (char **text = texts; *text != NULL; text++)
        free(*text);
    free(texts);
}

void put_field(struct field_writer *writer, uint16_t tag, const void *value, size_t length)
{
    uint8_t *bytes = writer->bytes + writer->length;

    if (writer->failed || length + FIELD_HEADER_BYTES > writer->capacity - writer->length) {
        writer->failed = true;
        return;
    }
    put_u16(bytes, tag);
    put_u32(bytes + 2, (uint32_t)length);
    if (length > 0)
        memcpy(bytes + FIELD_HEADER_BYTES, value, length);
    writer->length += FIELD_HEADER_BYTES + length;
}

void put_text_field(struct field_writer *writer, uint16_t tag, const char *text)
{
    put_field(writer, tag, text, strlen(text));
}

void put_u8_field(struct field_writer *writer, uint16_t tag, uint8_t value)
{
    put_field(writer, tag, &value, 1);
}

void put_u16_field(struct field_writer *writer, uint16_t tag, uint16_t value)
{
    uint8_t bytes[2];

    put_u16(bytes, value);
    put_field(writer, tag, bytes, sizeof bytes);
}

void put_u32_field(struct field_writer *writer, uint16_t tag, uint32_t value)
{
    uint8_t bytes[4];

    put_u32(bytes, value);
    put_field(writer, tag, bytes, sizeof bytes);
}

void put_u64_field(struct field_writer *writer, uint16_t tag, uint64_t value)
{
    uint8_t bytes[8];

    put_u64(bytes, value);
    put_field(writer, tag, bytes, sizeof bytes);
}
