/* What the kernel's command line says to stage 1: words `roost.NAME=VALUE`. */
#ifndef ROOST_GUEST_SETTINGS_H
#define ROOST_GUEST_SETTINGS_H

#include <stdbool.h>

#define SETTING_BYTES 128

/* A disk: `serial:TEXT`, or a path. */
struct settings {
    char root[SETTING_BYTES];       /* roost.root: the image's disk; required */
    char root_type[SETTING_BYTES];  /* roost.root.type: squashfs (default), erofs, ext4 … */
    char upper[SETTING_BYTES];      /* roost.upper: what is written to; "tmpfs" (default) or a disk */
    char upper_type[SETTING_BYTES]; /* roost.upper.type: ext4 (default) */
    char
        upper_options[SETTING_BYTES]; /* roost.upper.options: of its mount; for a tmpfs its size= and so on */
    char transport[SETTING_BYTES];    /* roost.transport: virtio (default) or vsock */
};

/* Reads a command line. False, with the wrong word in `wrong`, if a word of ours is unknown or too long. */
bool read_settings(const char *line, struct settings *settings, char wrong[SETTING_BYTES]);

#endif
