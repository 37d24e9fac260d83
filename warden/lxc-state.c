/* See lxc-state.h. */
#include "lxc-state.h"

#include "loop.h"
#include "spawn.h"

#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

/* They have nothing to wait for. */
#define PATIENCE_MS 5000

static void give_up(void);

static struct alarm patience = {.ring = give_up};
static const struct options *options;
static void (*when_told)(void);
static char *programs[2]; /* by whether it is frozen; none where liblxc comes without them */
static pid_t child;       /* 0: none */
static bool telling, known, is_interrupted;

void lxc_state_open(const struct options *given, void (*told)(void))
{
    options = given;
    when_told = told;
    programs[false] = path_in(options->programs, "lxc-unfreeze");
    programs[true] = path_in(options->programs, "lxc-freeze");
    for (int i = 0; i < 2; i++)
        if (access(programs[i], X_OK) < 0) {
            free(programs[i]);
            programs[i] = NULL;
        }
    loop_alarm(&patience);
}

void lxc_state_tell(bool is_frozen)
{
    char *const arguments[] = {programs[is_frozen], "-P", (char *)options->lxcpath, "-n", (char *)options->name, NULL};

    if (programs[is_frozen] == NULL || known == is_frozen) {
        known = is_frozen;
        when_told();
        return;
    }
    telling = is_frozen;
    patience.due = now_ms() + PATIENCE_MS;
    child = spawn(arguments, &(struct files){.of = {-1, STDERR_FILENO}, .count = 2});
}

bool lxc_state_is_being_told(void)
{
    return child != 0;
}

bool lxc_state_is_frozen(void)
{
    return known;
}

static void give_up(void)
{
    patience.due = 0;
    if (child != 0)
        (void)kill(child, SIGKILL);
}

void lxc_state_interrupt(void)
{
    is_interrupted = child != 0;
    give_up();
}

void lxc_state_forget(void)
{
    known = telling = is_interrupted = false;
}

void lxc_state_child_ended(pid_t ended)
{
    if (ended != child)
        return;
    child = 0;
    patience.due = 0;
    known = telling || is_interrupted;
    is_interrupted = false;
    when_told();
}
