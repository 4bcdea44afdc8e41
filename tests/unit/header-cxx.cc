/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The client API as a C++ program sees it: that this compiles (with all warnings as errors), links
 * and runs is the test. Nothing here needs a daemon.
 */
#include <holdfast/holdfast.h>
#include <holdfast/image.h>

#include <cstdlib>
#include <cstring>
#include <memory>

namespace
{

struct Free {
    void operator()(hf_request *request) const
    {
        hf_request_free(request);
    }
    void operator()(hf_error *error) const
    {
        hf_error_free(error);
    }
    void operator()(char *text) const
    {
        std::free(text);
    }
};

template <typename T> using Owned = std::unique_ptr<T, Free>;

} // namespace

int main()
{
    Owned<hf_request> request(hf_request_new(0));
    Owned<char> path(hf_default_socket());
    hf_error *error = nullptr;

    if (!request || !path)
        return 1;
    if (hf_request_add_disk(request.get(), "/srv/a.img", HF_MODE_EXCLUSIVE) != 0 ||
        hf_request_add_lease(request.get(), "/locks", "a", HF_MODE_SHARED) != 0 ||
        hf_request_add_disk(request.get(), "relative", HF_MODE_READONLY) != HF_ERR_INVALID_ARGUMENT)
        return 2;
    if (hf_connect("/nonexistent/holdfast.sock", 0, &error) != nullptr)
        return 3;
    Owned<hf_error> owned(error);
    if (hf_error_code(error) != HF_ERR_CONNECTION ||
        !std::strstr(hf_error_message(error), "/nonexistent/holdfast.sock"))
        return 4;

    hf_image_options options = {};
    hf_image_result *result = nullptr;
    options.size = sizeof(options);
    options.format = "raw";
    hf_error *no_image = nullptr;
    if (hf_image_check(-1, &options, &result, &no_image) != HF_ERR_BAD_RESOURCE)
        return 5;
    Owned<hf_error> owned_too(no_image);
    return 0;
}
