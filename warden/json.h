/* As much of JSON (RFC 8259) as commands of QMP are made of. Strict: what it takes, every reader takes. */
#ifndef ROOST_WARDEN_JSON_H
#define ROOST_WARDEN_JSON_H

#include <stdbool.h>
#include <stddef.h>

/* A part of somebody's text, as it was written: of a string what is between the quotes. */
struct text {
    const char *start; /* NULL: there is none */
    size_t length;
};

/* CUT: it may become whole. */
enum reading { READ_WHOLE, READ_CUT, READ_BAD };

/* The object that a text begins with, which may have blanks before it; what is behind it is not looked at. */
enum reading read_object(struct text text, struct text *object);

/* Members of an object that was read, one after the other, from the first on while *place is NULL. False: no more. */
bool next_member(struct text object, const char **place, struct text *name, struct text *value);

/* Whether a value is a string, and which. */
bool string_of(struct text value, struct text *string);

bool text_is(struct text text, const char *wanted);

/* Writes a text as what is between the quotes of a string, as far as there is room for it and its zero. */
void write_string(char *to, size_t size, const char *from);

#endif
