/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The queue of events that came while the reply to a command was awaited. It is bounded: a caller
 * who never asks for events must not grow for ever. What is dropped is never dropped silently:
 * an event of the library's own, EVENTS_LOST, stands where they are missing.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client-internal.h"

struct hfc_event {
    hfc_event *next;
    size_t length;
    char text[];
};

static char *events_lost(const char *count)
{
    char now[32], *text = NULL;

    hfc_format_now(now, sizeof(now));
    if (asprintf(&text, "{\"event\":\"EVENTS_LOST\",\"data\":{\"count\":%s},\"timestamp\":\"%s\"}",
                 count, now) < 0)
        return NULL;
    return text;
}

void hfc_events_push(hfc_events *events, const char *text)
{
    size_t length = strlen(text);
    hfc_event *event = NULL;

    /* Once one was lost, so are those after it, until the caller has caught up: then the one
     * EVENTS_LOST at the end of the queue stands exactly where they are missing. */
    if (events->lost == 0 && events->count < HFC_MAX_EVENTS &&
        events->bytes + length <= HFC_MAX_EVENT_BYTES)
        event = malloc(sizeof(*event) + length + 1);
    if (!event) {
        events->lost++;
        return;
    }
    event->next = NULL;
    event->length = length;
    memcpy(event->text, text, length + 1);
    if (events->last)
        events->last->next = event;
    else
        events->first = event;
    events->last = event;
    events->count++;
    events->bytes += length;
}

void hfc_events_push_gap(hfc_events *events)
{
    char *text = events_lost("null");

    if (text)
        hfc_events_push(events, text);
    else
        events->lost++;
    free(text);
}

char *hfc_events_pop(hfc_events *events)
{
    hfc_event *event = events->first;

    if (event) {
        /* The text moves to the front of its own allocation: popping cannot run out of memory. */
        size_t length = event->length;

        events->first = event->next;
        if (!events->first)
            events->last = NULL;
        events->count--;
        events->bytes -= length;
        return memmove(event, event->text, length + 1);
    }
    if (events->lost > 0) {
        char count[24], *text;

        snprintf(count, sizeof(count), "%zu", events->lost);
        text = events_lost(count);
        if (text)
            events->lost = 0;
        return text;
    }
    return NULL;
}

void hfc_events_clear(hfc_events *events)
{
    while (events->first) {
        hfc_event *event = events->first;

        events->first = event->next;
        free(event);
    }
    *events = (hfc_events){0};
}
