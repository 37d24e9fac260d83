/* The container's console: a terminal whose other end is a log, always, and one client of a socket. */
#ifndef ROOST_WARDEN_CONSOLE_H
#define ROOST_WARDEN_CONSOLE_H

/* Returns the terminal's name. */
const char *console_open(void);

/* Takes what is still there, when nobody writes any more. */
void console_close(void);

#endif
