/* See json.h. */
#include "json.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* No command of ours has more than two. */
#define DEEPEST 32

struct cursor {
    const char *at, *end;
    int depth;
};

static enum reading skip_value(struct cursor *cursor);

static void skip_blanks(struct cursor *cursor)
{
    while (cursor->at < cursor->end && strchr(" \t\r\n", *cursor->at) != NULL && *cursor->at != '\0')
        cursor->at++;
}

/* One character, and blanks before it. */
static enum reading skip_character(struct cursor *cursor, char wanted)
{
    skip_blanks(cursor);
    if (cursor->at == cursor->end)
        return READ_CUT;
    if (*cursor->at != wanted)
        return READ_BAD;
    cursor->at++;
    return READ_WHOLE;
}

static enum reading skip_word(struct cursor *cursor, const char *word)
{
    for (; *word != '\0'; word++, cursor->at++) {
        if (cursor->at == cursor->end)
            return READ_CUT;
        if (*cursor->at != *word)
            return READ_BAD;
    }
    return READ_WHOLE;
}

static bool is_digit(char byte)
{
    return byte >= '0' && byte <= '9';
}

static bool is_hex(char byte)
{
    return is_digit(byte) || (byte >= 'a' && byte <= 'f') || (byte >= 'A' && byte <= 'F');
}

static enum reading skip_digits(struct cursor *cursor)
{
    if (cursor->at == cursor->end)
        return READ_CUT;
    if (!is_digit(*cursor->at))
        return READ_BAD;
    while (cursor->at < cursor->end && is_digit(*cursor->at))
        cursor->at++;
    return READ_WHOLE;
}

static enum reading skip_number(struct cursor *cursor)
{
    enum reading reading;

    if (*cursor->at == '-')
        cursor->at++;
    if (cursor->at < cursor->end && *cursor->at == '0') {
        cursor->at++;
        if (cursor->at < cursor->end && is_digit(*cursor->at))
            return READ_BAD;
    } else if ((reading = skip_digits(cursor)) != READ_WHOLE)
        return reading;
    if (cursor->at < cursor->end && *cursor->at == '.') {
        cursor->at++;
        if ((reading = skip_digits(cursor)) != READ_WHOLE)
            return reading;
    }
    if (cursor->at < cursor->end && (*cursor->at == 'e' || *cursor->at == 'E')) {
        cursor->at++;
        if (cursor->at < cursor->end && (*cursor->at == '+' || *cursor->at == '-'))
            cursor->at++;
        return skip_digits(cursor);
    }
    return READ_WHOLE;
}

static enum reading skip_escape(struct cursor *cursor)
{
    if (cursor->at == cursor->end)
        return READ_CUT;
    if (*cursor->at != 'u') {
        bool is_known = *cursor->at != '\0' && strchr("\"\\/bfnrt", *cursor->at) != NULL;

        cursor->at++;
        return is_known ? READ_WHOLE : READ_BAD;
    }
    cursor->at++;
    for (int i = 0; i < 4; i++, cursor->at++) {
        if (cursor->at == cursor->end)
            return READ_CUT;
        if (!is_hex(*cursor->at))
            return READ_BAD;
    }
    return READ_WHOLE;
}

/* A character of more than one byte (RFC 3629): neither longer than need be, nor half of a pair, nor beyond the last. */
static enum reading skip_character_of_utf8(struct cursor *cursor)
{
    uint8_t first = (uint8_t)*cursor->at, low = 0x80, high = 0xbf;
    int more = first >= 0xf0 ? 3 : first >= 0xe0 ? 2 : 1;

    if (first < 0xc2 || first > 0xf4)
        return READ_BAD;
    if (first == 0xe0)
        low = 0xa0;
    else if (first == 0xed)
        high = 0x9f;
    else if (first == 0xf0)
        low = 0x90;
    else if (first == 0xf4)
        high = 0x8f;
    for (cursor->at++; more > 0; more--, cursor->at++) {
        if (cursor->at == cursor->end)
            return READ_CUT;
        if ((uint8_t)*cursor->at < low || (uint8_t)*cursor->at > high)
            return READ_BAD;
        low = 0x80;
        high = 0xbf;
    }
    return READ_WHOLE;
}

static enum reading skip_string(struct cursor *cursor)
{
    enum reading reading = skip_character(cursor, '"');

    while (reading == READ_WHOLE) {
        if (cursor->at == cursor->end)
            return READ_CUT;
        if (*cursor->at == '"') {
            cursor->at++;
            return READ_WHOLE;
        }
        if ((uint8_t)*cursor->at >= 0x80) {
            reading = skip_character_of_utf8(cursor);
            continue;
        }
        if ((uint8_t)*cursor->at < ' ')
            return READ_BAD;
        if (*cursor->at++ == '\\')
            reading = skip_escape(cursor);
    }
    return reading;
}

static enum reading skip_member(struct cursor *cursor)
{
    enum reading reading = skip_string(cursor);

    if (reading == READ_WHOLE)
        reading = skip_character(cursor, ':');
    return reading == READ_WHOLE ? skip_value(cursor) : reading;
}

/* An object or an array, whose first character was seen. */
static enum reading skip_list(struct cursor *cursor, char close, enum reading (*skip_item)(struct cursor *cursor))
{
    enum reading reading;

    cursor->at++;
    if (++cursor->depth > DEEPEST)
        return READ_BAD;
    reading = skip_character(cursor, close);
    while (reading == READ_BAD) {
        if ((reading = skip_item(cursor)) != READ_WHOLE)
            return reading;
        if ((reading = skip_character(cursor, close)) != READ_BAD)
            break;
        if ((reading = skip_character(cursor, ',')) != READ_WHOLE)
            return reading;
        reading = READ_BAD;
    }
    cursor->depth--;
    return reading;
}

static enum reading skip_value(struct cursor *cursor)
{
    skip_blanks(cursor);
    if (cursor->at == cursor->end)
        return READ_CUT;
    switch (*cursor->at) {
    case '{':
        return skip_list(cursor, '}', skip_member);
    case '[':
        return skip_list(cursor, ']', skip_value);
    case '"':
        return skip_string(cursor);
    case 't':
        return skip_word(cursor, "true");
    case 'f':
        return skip_word(cursor, "false");
    case 'n':
        return skip_word(cursor, "null");
    default:
        return skip_number(cursor);
    }
}

enum reading read_object(struct text text, struct text *object)
{
    struct cursor cursor = {.at = text.start, .end = text.start + text.length};
    enum reading reading;

    skip_blanks(&cursor);
    object->start = cursor.at;
    if (cursor.at == cursor.end)
        return READ_CUT;
    reading = *cursor.at == '{' ? skip_value(&cursor) : READ_BAD;
    object->length = (size_t)(cursor.at - object->start);
    return reading;
}

bool next_member(struct text object, const char **place, struct text *name, struct text *value)
{
    struct cursor cursor = {
        /* Behind the brace, and later before a comma or the last brace. */
        .at = *place == NULL ? object.start + 1 : *place,
        .end = object.start + object.length,
    };

    skip_blanks(&cursor);
    if (*place != NULL && *cursor.at == ',')
        cursor.at++;
    skip_blanks(&cursor);
    if (*cursor.at == '}')
        return false;
    name->start = cursor.at + 1;
    (void)skip_string(&cursor);
    name->length = (size_t)(cursor.at - name->start) - 1;
    (void)skip_character(&cursor, ':');
    skip_blanks(&cursor);
    value->start = cursor.at;
    (void)skip_value(&cursor);
    value->length = (size_t)(cursor.at - value->start);
    *place = cursor.at;
    return true;
}

bool string_of(struct text value, struct text *string)
{
    if (value.start == NULL || *value.start != '"')
        return false;
    *string = (struct text){.start = value.start + 1, .length = value.length - 2};
    return true;
}

bool text_is(struct text text, const char *wanted)
{
    return text.start != NULL && text.length == strlen(wanted) && memcmp(text.start, wanted, text.length) == 0;
}

void write_string(char *to, size_t size, const char *from)
{
    size_t at = 0;

    for (; *from != '\0' && at + 7 < size; from++) {
        uint8_t byte = (uint8_t)*from;

        if (byte == '"' || byte == '\\') {
            to[at++] = '\\';
            to[at++] = (char)byte;
        } else if (byte < ' ' || byte >= 0x7f)
            at += (size_t)snprintf(to + at, size - at, "\\u%04x", byte);
        else
            to[at++] = (char)byte;
    }
    to[at] = '\0';
}
