// Products of many small matrices on one core: out[i] = left[i] right[i], factors with any strides.
//
// Libraries are made for large matrices, or for another maker's processors: 16 products of (32, 64) by (64, 64) were
// measured at 87 GFLOP/s through torch (MKL) on a core that does 220 at its best, and at 170 to 200 here. A tile of the
// result stays in registers while it runs over the depth; the right factor is read by rows, and packed first where its
// rows do not lie in one piece.

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#if defined(__clang__)
#pragma clang fp contract(fast)
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=fast")  // multiplications and additions in one instruction
#endif

namespace {

// Bytes of a register, the widest tile in registers, and the rows of a tile by its width: what the registers hold.
#if defined(__AVX512F__)
constexpr int BYTES = 64, WIDEST = 4, ROWS[] = {0, 16, 8, 8, 6};
#elif defined(__AVX__)
constexpr int BYTES = 32, WIDEST = 2, ROWS[] = {0, 8, 6};
#else
constexpr int BYTES = 16, WIDEST = 4, ROWS[] = {0, 8, 8, 6, 4};
#endif

template <typename T>
struct Lanes {
  typedef T Vector __attribute__((vector_size(BYTES)));
  typedef T Anywhere __attribute__((vector_size(BYTES), aligned(sizeof(T)), may_alias));
  static constexpr int count = BYTES / sizeof(T);
};

template <typename T>
struct Matrix {
  const T* at;
  int64_t row, column;  // strides
  Matrix from(int64_t r, int64_t c) const { return {at + r * row + c * column, row, column}; }
};

template <typename T>
inline typename Lanes<T>::Vector load(const T* from) {
  return *reinterpret_cast<const typename Lanes<T>::Anywhere*>(from);
}

template <typename T>
inline void store(T* to, typename Lanes<T>::Vector value) {
  *reinterpret_cast<typename Lanes<T>::Anywhere*>(to) = value;
}

// R rows and C vectors of the result; the right factor's rows lie in one piece.
template <typename T, int R, int C>
inline __attribute__((always_inline)) void tile(T* out, int64_t ahead, Matrix<T> left, Matrix<T> right, int64_t depth) {
  typename Lanes<T>::Vector sums[R][C] = {};
  for (int64_t k = 0; k < depth; ++k) {
    typename Lanes<T>::Vector row[C];
    for (int c = 0; c < C; ++c) row[c] = load(right.at + k * right.row + c * Lanes<T>::count);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const T factor = left.at[r * left.row + k * left.column];
#pragma GCC unroll 4
      for (int c = 0; c < C; ++c) sums[r][c] += factor * row[c];
    }
  }
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < C; ++c) store(out + r * ahead + c * Lanes<T>::count, sums[r][c]);
}

// As many tiles of R rows as there is room for; returns the rows done.
template <typename T, int R, int C>
inline int64_t down(int64_t done, int64_t rows, T* out, int64_t ahead, Matrix<T> left, Matrix<T> right, int64_t depth) {
  for (; done + R <= rows; done += R) tile<T, R, C>(out + done * ahead, ahead, left.from(done, 0), right, depth);
  return done;
}

template <typename T, int C>
void panel(int64_t rows, T* out, int64_t ahead, Matrix<T> left, Matrix<T> right, int64_t depth) {
  int64_t done = down<T, ROWS[C], C>(0, rows, out, ahead, left, right, depth);
  if constexpr (ROWS[C] > 8) done = down<T, 8, C>(done, rows, out, ahead, left, right, depth);
  if constexpr (ROWS[C] > 4) done = down<T, 4, C>(done, rows, out, ahead, left, right, depth);
  done = down<T, 2, C>(done, rows, out, ahead, left, right, depth);
  down<T, 1, C>(done, rows, out, ahead, left, right, depth);
}

template <typename T>
void columns(int vectors, int64_t rows, T* out, int64_t ahead, Matrix<T> left, Matrix<T> right, int64_t depth) {
  if constexpr (WIDEST == 4) {
    if (vectors == 4) return panel<T, WIDEST>(rows, out, ahead, left, right, depth);
    if (vectors == 3) return panel<T, WIDEST - 1>(rows, out, ahead, left, right, depth);
  }
  if (vectors == 2) return panel<T, 2>(rows, out, ahead, left, right, depth);
  panel<T, 1>(rows, out, ahead, left, right, depth);
}

// One stage of transposing a square of vectors: entries change places where one bit of row and column differs.
template <typename V, int BIT, bool SECOND, int... J>
inline __attribute__((always_inline)) V half(V a, V b, std::integer_sequence<int, J...>) {
  constexpr int N = sizeof...(J);
  return __builtin_shufflevector(a, b, ((J & BIT) ? (SECOND ? N + J : N + J - BIT) : (SECOND ? J + BIT : J))...);
}

template <typename T, int BIT>
inline __attribute__((always_inline)) void transpose(typename Lanes<T>::Vector* rows) {
  using V = typename Lanes<T>::Vector;
  constexpr auto all = std::make_integer_sequence<int, Lanes<T>::count>();
#pragma GCC unroll 16
  for (int r = 0; r < Lanes<T>::count; ++r) {
    if (r & BIT) continue;
    const V first = half<V, BIT, false>(rows[r], rows[r + BIT], all);
    rows[r + BIT] = half<V, BIT, true>(rows[r], rows[r + BIT], all);
    rows[r] = first;
  }
  if constexpr (BIT > 1) transpose<T, BIT / 2>(rows);
}

// The first `width` columns in rows of `padded`, zeros behind.
template <typename T>
void pack(T* packed, int64_t padded, int64_t width, Matrix<T> from, int64_t depth) {
  constexpr int N = Lanes<T>::count;
  for (int64_t c = 0; c < padded; c += N) {
    int64_t k = 0;
    for (; from.row == 1 && k + N <= depth; k += N) {
      typename Lanes<T>::Vector square[N];
#pragma GCC unroll 16
      for (int j = 0; j < N; ++j)
        square[j] = c + j < width ? load(from.from(k, c + j).at) : typename Lanes<T>::Vector{};
      transpose<T, N / 2>(square);
#pragma GCC unroll 16
      for (int j = 0; j < N; ++j) store(packed + (k + j) * padded + c, square[j]);
    }
    for (; k < depth; ++k)
      for (int64_t j = c; j < c + N; ++j) packed[k * padded + j] = j < width ? *from.from(k, j).at : T(0);
  }
}

template <typename T>
void product(T* out, int64_t rows, int64_t wide, int64_t depth, Matrix<T> left, Matrix<T> right, T* scratch) {
  constexpr int N = Lanes<T>::count;
  for (int64_t c = 0, width; c < wide; c += width) {
    width = wide - c < WIDEST * N ? wide - c : WIDEST * N;
    if (right.column == 1 && width >= N) {
      width -= width % N;
      columns<T>(width / N, rows, out + c, wide, left, right.from(0, c), depth);
      continue;
    }
    const int64_t padded = (width + N - 1) / N * N;
    pack<T>(scratch, padded, width, right.from(0, c), depth);
    const Matrix<T> packed = {scratch, padded, 1};
    if (padded == width) {
      columns<T>(padded / N, rows, out + c, wide, left, packed, depth);
      continue;
    }
    T* rest = scratch + depth * padded;
    columns<T>(padded / N, rows, rest, padded, left, packed, depth);
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t j = 0; j < width; ++j) out[r * wide + c + j] = rest[r * padded + j];
  }
}

template <typename T>
void products(T* out, const T* left, const T* right, int64_t count, int64_t rows, int64_t wide, int64_t depth,
              int64_t left_ahead, int64_t left_row, int64_t left_column, int64_t right_ahead, int64_t right_row,
              int64_t right_column, int64_t threads) {
  const std::size_t room = (depth + rows) * WIDEST * Lanes<T>::count;
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    thread_local std::vector<T> scratch;
    if (scratch.size() < room) scratch.resize(room);
#pragma omp for
    for (int64_t i = 0; i < count; ++i)
      product<T>(out + i * rows * wide, rows, wide, depth, {left + i * left_ahead, left_row, left_column},
                 {right + i * right_ahead, right_row, right_column}, scratch.data());
  }
}

}  // namespace
