/* conv.cu - a convolution as a product: the patch of every output pixel becomes a row of columns. What cuDNN has no engine for
 * goes this way. */
#include "kernels/cuda/elem.h"

/* y[(b pixels + p)][c kernel + k] */
QK_KERNEL(im2col_kernel, qk_im2col_args)
{
    const int64_t pixels = a.out[0] * a.out[1] * a.out[2], taps = a.kernel[0] * a.kernel[1] * a.kernel[2], width = a.group_channels * taps;
    const uint64_t outside = a.zero_at ? *(const uint8_t *)a.zero_at : (uint64_t)(uint32_t)a.zero;
    QK_EACH(i, a.batch * pixels * width) {
        const int64_t col = i % width, c = a.first_channel + col / taps, p = i / width % pixels, b = i / width / pixels;
        int64_t tap = col % taps, px = p, at = 0, in = 1;
        int64_t o[3], k[3];
        for (int d = 2; d >= 0; d--) {
            o[d] = px % a.out[d];
            px /= a.out[d];
            k[d] = tap % a.kernel[d];
            tap /= a.kernel[d];
        }
        for (int d = 0; d < 3; d++) {
            const int64_t x = o[d] * a.stride[d] + k[d] * a.dilation[d] - a.begin[d];
            in = in && x >= 0 && x < a.in[d];
            at = at * a.in[d] + x;
        }
        if (in) qk_move(a.x, (b * a.channels + c) * a.in[0] * a.in[1] * a.in[2] + at, a.y, i, a.size);
        else qk_move(&outside, 0, a.y, i, a.size);
    }
}
QK_EXTERN int qk_im2col(qk_queue q, const qk_im2col_args *a)
{
    const int64_t n = a->batch * a->out[0] * a->out[1] * a->out[2] * a->group_channels * a->kernel[0] * a->kernel[1] * a->kernel[2];
    return QK_LAUNCH(im2col_kernel, QK_EACH_BLOCKS(n), 256, q, a);
}
