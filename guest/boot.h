/* Stage 1: from an empty initramfs to the image's tree as the root. */
#ifndef ROOST_GUEST_BOOT_H
#define ROOST_GUEST_BOOT_H

#include "settings.h"

/* Mounts the kernel's own file systems and loads the modules. What fails is remembered and does not end it.
 */
void prepare_kernel(void);

/* Loads what the initramfs has for a type of file system or of channel; nothing where it is a part of the
 * kernel. */
void load_modules_for(const char *word);

/* Mounts the image and makes it the root. */
void enter_root(const struct settings *settings);

/* Why the guest did not come up, or NULL. */
const char *boot_failure(void);

/* A line on the console and in the kernel's log. */
__attribute__((format(printf, 1, 2))) void log_line(const char *format, ...);

#endif
